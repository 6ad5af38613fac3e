//! Every bound on what the agent or an origin can make us hold or wait for, in one place.

use std::time::Duration;

/// Connections that one sidecar serves at a time; further ones wait in the listener's queue.
pub const CONNECTIONS: usize = 4096;
/// As many however few files may be open: then opening one fails, and is told.
pub const FEWEST_CONNECTIONS: usize = 16;
/// Connections of smolvm's interceptor that have not said their hello yet, and how long one may take: smolvm says it at
/// once, and only smolvm knows the token, so that these are a stranger's to fill, from this host.
pub const HELLOS: usize = 64;
pub const HELLO: Duration = Duration::from_secs(5);
/// A request's or response's head, start line and all.
pub const HEAD_BYTES: usize = 64 * 1024;
pub const HEADERS: usize = 100;
/// A chunk extension carries nothing that we forward.
pub const CHUNK_LINE_BYTES: usize = 256;
/// Bytes read at once while a body flows.
pub const READ_BYTES: usize = 64 * 1024;
/// What is read and thrown away so that a refusal can be read before the connection closes.
pub const DRAIN_BYTES: usize = 256 * 1024;
pub const DRAIN: Duration = Duration::from_secs(1);
/// Of a body that goes on and on, what is read, or written, before other connections have their turn.
pub const TURN_BYTES: usize = 96 * 1024;
/// Decoded bytes of a `Content-Encoding` body, as a multiple of the encoded size and in all.
pub const DECODE_RATIO: u64 = 200;
pub const DECODE_BYTES: u64 = 64 * 1024 * 1024;
/// What a body of at most [`ASIDE_BYTES`] may decode to without waiting for its turn behind those that take long.
pub const DECODE_SHORT: u64 = 256 * 1024;
/// Request bodies that are held at one time, all connections together; a request that finds no room waits
/// [`HELD_WAIT`] and is then refused.
pub const HELD_BYTES: usize = 256 * 1024 * 1024;
pub const HELD_UNIT: usize = 16 * 1024;
pub const HELD_WAIT: Duration = Duration::from_secs(10);
/// Bodies that are decoded at the same time.
pub const DECODES: usize = 2;
/// A body that is longer, or has a coding, is looked at by the crew, where it holds up nobody. Below, to hand it over takes
/// longer than to scan what of it is new.
pub const ASIDE_BYTES: usize = 64 * 1024;
/// Texts that are remembered as free of findings, for each set of detectors, and how long one may be.
pub const CLEAN_TEXTS: usize = 1024;
pub const CLEAN_BYTES: usize = 256;
/// The same for whole heads.
pub const CLEAN_HEADS: usize = 256;
pub const CLEAN_HEAD_BYTES: usize = 4 * 1024;
/// Windows of the scanner (64 KiB of a body, or all of a shorter one) that are remembered as free of findings, for each set of
/// detectors: half a gigabyte of conversations, in some 400 KiB.
pub const CLEAN_WINDOWS: usize = 8192;
/// Requests that wait for an operator at one time, and what their bodies may take together.
pub const PARKED: usize = 64;
pub const PARKED_BYTES: usize = 64 * 1024 * 1024;
/// Findings of one request that an operator is asked about.
pub const ASKS: usize = 16;
/// Findings that were refused unanswered and can still be approved, for the next try.
pub const MISSED: usize = 256;
/// Approvals and rejections that hold.
pub const DECISIONS: usize = 256;
/// Connections to the control API, and those of them that follow its events.
pub const CONTROL_CONNECTIONS: usize = 32;
pub const CONTROL_FOLLOWERS: usize = 8;
pub const CONTROL_BODY: usize = 16 * 1024;
pub const CONTROL_REQUEST: Duration = Duration::from_secs(15);
/// Lines a second that requests may write to the log; further ones are counted.
pub const LOG_LINES: u32 = 50;
/// Layers of `Content-Encoding`.
pub const DECODE_LAYERS: usize = 4;

pub const H2_STREAMS: u32 = 128;
pub const H2_STREAM_WINDOW: u32 = 1024 * 1024;
pub const H2_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Streams that an agent may reset before they were looked at (CVE-2023-44487).
pub const H2_RESETS: usize = 64;
/// Frames of an agent that carry nothing (pings, settings, resets, empty data): so many at once, then at this pace.
pub const H2_IDLE_FRAMES: usize = 512;
pub const H2_IDLE_FRAMES_PER_SECOND: usize = 64;
/// Requests of one connection that are still worked on, those counted whose streams the agent has reset.
pub const H2_TASKS: usize = 512;

/// What a compressed WebSocket message may inflate to in any case; above it, [`DECODE_RATIO`] counts.
pub const INFLATED_BYTES: u64 = 1024 * 1024;
/// Fragments of one WebSocket message that may hold nothing.
pub const EMPTY_FRAGMENTS: usize = 64;
/// For the other side of a WebSocket to answer a close.
pub const CLOSE: Duration = Duration::from_secs(5);
/// Of the messages before one, what is scanned together with it.
pub const ACROSS_BYTES: usize = 4 * 1024;
/// Of a message, what is scanned together with those before it.
pub const ACROSS_AHEAD: usize = 16 * 1024;

/// Answers such as 100 and 103 before the one that counts.
pub const INFORMATIONAL: usize = 32;

/// From the first byte of a request's head to its last.
pub const HEAD: Duration = Duration::from_secs(15);
/// From CONNECT's answer to a complete ClientHello, and for each TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
pub const RESOLVE: Duration = Duration::from_secs(10);
/// Of [`RESOLVE`], for one question to one name server.
pub const RESOLVE_ATTEMPT: Duration = Duration::from_secs(3);
/// Addresses in one answer.
pub const ADDRESSES: usize = 64;
/// Addresses that are tried, each [`STAGGER`] after the one before (RFC 8305 §8), within [`DIAL`].
pub const ATTEMPTS: usize = 8;
pub const STAGGER: Duration = Duration::from_millis(250);
pub const DIAL: Duration = Duration::from_secs(10);
/// Between two reads of a request body.
pub const BODY_IDLE: Duration = Duration::from_secs(60);
/// What a request body is waited for before it must have kept up [`BODY_RATE`].
pub const BODY_GRACE: Duration = Duration::from_secs(30);
/// Bytes a second of a request body, on average.
pub const BODY_RATE: u32 = 1024;
/// Between two requests of a connection, and between two reads of a response (a model may think for minutes).
pub const IDLE: Duration = Duration::from_secs(600);
/// For a peer to take what we write.
pub const WRITE: Duration = Duration::from_secs(60);
/// For requests in flight once a stop was asked for.
pub const GRACE: Duration = Duration::from_secs(5);
