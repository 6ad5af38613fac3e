//! An origin's answer, from the wait for its head to its last byte.

use http::Method;
use tokio::io::ReadHalf;
use tokio::time::timeout;

use super::lane::SendFailure;
use crate::h1::body::{Body, HeadError, Reader};
use crate::h1::parse::{self, Framing};
use crate::h2side;
use crate::limits;
use crate::message::{BodyError, Frame, ResponseHead, Size};
use crate::net::Origin;
use crate::verdict::Cause;

/// A response that is on its way.
#[derive(Debug)]
pub enum Pending<'a> {
    /// `taken`: all of the request was written. `may_switch`: a 101 is an answer.
    H1 {
        reader: &'a mut Reader<ReadHalf<Origin>>,
        method: Method,
        taken: bool,
        may_switch: bool,
    },
    H2 {
        response: h2::client::ResponseFuture,
        method: Method,
    },
}

impl<'a> Pending<'a> {
    /// The request asked for another protocol.
    pub fn or_switched(mut self) -> Self {
        if let Self::H1 { may_switch, .. } = &mut self {
            *may_switch = true;
        }
        self
    }

    pub async fn response(self) -> Result<Response<'a>, SendFailure> {
        match self {
            Self::H1 {
                reader,
                method,
                taken,
                may_switch,
            } => {
                for informational in 0..limits::INFORMATIONAL {
                    let head = reader
                        .head(limits::IDLE, |buf| parse::response(buf, &method))
                        .await;
                    let response = match head {
                        Ok(Some(response)) => response,
                        // Once a byte of an answer came, the request was seen and is not sent again.
                        Ok(None) if informational > 0 => {
                            return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                                "it closed the connection before its answer".into(),
                            )));
                        }
                        Ok(None) => {
                            return Err(SendFailure::Dead(
                                "it closed the connection without an answer".into(),
                            ));
                        }
                        Err(HeadError::Io(error)) if informational > 0 || reader.has_leftover() => {
                            return Err(SendFailure::Failed(Cause::UpstreamProtocol(format!(
                                "it closed the connection within its answer ({error})"
                            ))));
                        }
                        Err(HeadError::Io(error)) => {
                            return Err(SendFailure::Dead(error.to_string()));
                        }
                        Err(HeadError::Timeout) => {
                            return Err(SendFailure::Failed(Cause::UpstreamTimeout));
                        }
                        Err(HeadError::Malformed(why)) => {
                            return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                                why.to_string(),
                            )));
                        }
                    };
                    let switched = response.head.status == http::StatusCode::SWITCHING_PROTOCOLS;
                    if switched && !may_switch {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            "it switched protocols unasked".into(),
                        )));
                    }
                    if response.head.status.is_informational() && !switched {
                        continue;
                    }
                    let body = reader.body(response.framing, limits::IDLE);
                    let size = (response.framing != Framing::Empty).then(|| body.size());
                    return Ok(Response {
                        head: response.head,
                        size,
                        keep_alive: response.keep_alive && taken,
                        body: ResponseBody::H1(body),
                    });
                }
                Err(SendFailure::Failed(Cause::UpstreamProtocol(
                    "it has only informational answers".into(),
                )))
            }
            Self::H2 { response, method } => {
                let response = match timeout(limits::IDLE, response).await {
                    Err(_) => return Err(SendFailure::Failed(Cause::UpstreamTimeout)),
                    Ok(Err(error))
                        if error.is_remote()
                            && error.reason() == Some(h2::Reason::REFUSED_STREAM) =>
                    {
                        return Err(SendFailure::Dead(error.to_string()));
                    }
                    Ok(Err(error)) => {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            error.to_string(),
                        )));
                    }
                    Ok(Ok(response)) => response,
                };
                let (parts, body) = response.into_parts();
                let mut headers = h2side::from_map(&parts.headers);
                let declared = headers
                    .first("content-length")
                    .and_then(|value| std::str::from_utf8(value).ok())
                    .and_then(|text| text.parse().ok());
                headers.remove("content-length");
                let bodiless = method == Method::HEAD
                    || matches!(
                        parts.status,
                        http::StatusCode::NO_CONTENT | http::StatusCode::NOT_MODIFIED
                    );
                let size = match (body.is_end_stream(), declared) {
                    _ if bodiless => None,
                    (true, Some(1..)) => {
                        return Err(SendFailure::Failed(Cause::UpstreamProtocol(
                            "a body shorter than its length".into(),
                        )));
                    }
                    // No body, where HTTP/1.1 would wait for one to end with the connection.
                    (true, _) => Some(Size::Exact(0)),
                    (false, Some(length)) => Some(Size::Exact(length)),
                    (false, None) => Some(Size::Unknown),
                };
                // A bodiless answer (HEAD, 304) keeps the length that it tells of.
                if let (None, Some(length)) = (size, declared) {
                    headers.push(&b"content-length"[..], length.to_string());
                }
                let head = ResponseHead {
                    status: parts.status,
                    headers,
                };
                Ok(Response {
                    head,
                    size,
                    keep_alive: true,
                    body: ResponseBody::H2(Box::new(body), false),
                })
            }
        }
    }
}

#[derive(Debug)]
pub struct Response<'a> {
    pub head: ResponseHead,
    /// `None`: there is no body at all.
    pub size: Option<Size>,
    pub keep_alive: bool,
    pub body: ResponseBody<'a>,
}

#[derive(Debug)]
pub enum ResponseBody<'a> {
    H1(Body<'a, ReadHalf<Origin>>),
    H2(Box<h2::RecvStream>, bool),
}

impl ResponseBody<'_> {
    pub async fn frame(&mut self) -> Result<Option<Frame>, BodyError> {
        match self {
            Self::H1(body) => body.frame().await,
            Self::H2(_, true) => Ok(None),
            Self::H2(stream, done) => {
                let data = timeout(limits::IDLE, h2side::receive(stream))
                    .await
                    .map_err(|_| BodyError::Timeout)?;
                if let Some(data) = data {
                    return Ok(Some(Frame::Data(data?)));
                }
                *done = true;
                let trailers = timeout(limits::IDLE, stream.trailers())
                    .await
                    .map_err(|_| BodyError::Timeout)??;
                Ok(trailers.map(|map| Frame::Trailers(h2side::from_map(&map))))
            }
        }
    }

    pub fn is_done(&self) -> bool {
        match self {
            Self::H1(body) => body.is_done(),
            Self::H2(_, done) => *done,
        }
    }
}
