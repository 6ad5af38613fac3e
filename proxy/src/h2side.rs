//! What both sides of HTTP/2 share: turning heads over, and sending under flow control.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;

use crate::limits;
use crate::message::Headers;

pub fn to_map(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let name = HeaderName::from_bytes(name).ok()?;
        map.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(map)
}

pub fn from_map(map: &HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in map {
        headers.push(
            Bytes::copy_from_slice(name.as_str().as_bytes()),
            Bytes::copy_from_slice(value.as_bytes()),
        );
    }
    headers
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the stream failed: {0}")]
    H2(#[from] h2::Error),
    #[error("the peer took nothing for too long")]
    Timeout,
    #[error("the peer closed the stream")]
    Closed,
}

/// Sends a piece as the peer's windows allow; returns once all of it is handed over.
pub async fn send(
    stream: &mut h2::SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), SendError> {
    if data.is_empty() {
        if end {
            stream.send_data(data, true)?;
        }
        return Ok(());
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = timeout(
            limits::WRITE,
            std::future::poll_fn(|cx| stream.poll_capacity(cx)),
        )
        .await;
        let granted = match granted {
            Err(_) => return Err(SendError::Timeout),
            Ok(None) => return Err(SendError::Closed),
            Ok(Some(granted)) => granted?,
        };
        if granted == 0 {
            continue;
        }
        let piece = data.split_to(granted.min(data.len()));
        stream.send_data(piece, end && data.is_empty())?;
    }
    Ok(())
}

/// Receives a piece and gives its room back to the peer.
pub async fn receive(stream: &mut h2::RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = stream.data().await?;
    if let Ok(data) = &data {
        // An error means that the stream has ended, and with it its window.
        let _ended = stream.flow_control().release_capacity(data.len());
    }
    Some(data)
}
