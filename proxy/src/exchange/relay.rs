//! The response, passed on as it comes.

use super::{Gone, Reply};
use crate::message::Frame;
use crate::upstream::response::Response;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relayed {
    Whole { keep_alive: bool },
    Cut,
}

/// Passes the response on as it comes, piece by piece.
pub(super) async fn relay<R: Reply>(mut response: Response<'_>, reply: &mut R) -> Relayed {
    let mut head = response.head;
    // Of a body that is not there (HEAD, 304) only the origin knows the length; a 204 has none (RFC 9110 §8.6).
    let tells = response.size.is_none() && head.status != http::StatusCode::NO_CONTENT;
    let told = tells
        .then(|| head.headers.first("content-length").cloned())
        .flatten();
    head.headers.strip_hop_by_hop();
    // The marker is ours alone, and there is no way out over HTTP/3 to advertise.
    head.headers.remove("x-bottle-verdict");
    head.headers.remove("alt-svc");
    if let Some(length) = told {
        head.headers.push(&b"content-length"[..], length);
    }
    if reply.head(head, response.size).await.is_err() {
        return Relayed::Cut;
    }
    let mut trailers = None;
    if response.size.is_some() {
        loop {
            let frame = tokio::select! {
                biased;
                frame = response.body.frame() => frame,
                () = reply.gone() => return Relayed::Cut,
            };
            let sent = match frame {
                Ok(None) => break,
                Ok(Some(Frame::Data(data))) => reply.data(data).await,
                Ok(Some(Frame::Trailers(mut fields))) => {
                    fields.strip_trailers();
                    trailers = Some(fields);
                    Ok(())
                }
                Err(error) => {
                    tracing::debug!(%error, "a response ended early");
                    Err(Gone)
                }
            };
            if sent.is_err() {
                return Relayed::Cut;
            }
        }
    }
    match reply.end(trailers).await {
        Ok(()) => Relayed::Whole {
            keep_alive: response.keep_alive && response.body.is_done(),
        },
        Err(Gone) => Relayed::Cut,
    }
}
