//! What takes long and holds up nobody: the way to the crew.

use bytes::Bytes;

use super::Exchange;
use crate::content::{self, Codings, Layers};
use crate::limits;
use crate::verdict::Cause;

impl Exchange<'_> {
    /// Has the crew do what may take long, slice by slice.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        slice: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Result<T, Cause> {
        let crew = &self.sidecar.crew;
        Ok(crew.run(self.pool.number, slice).await?)
    }

    /// Has done what takes long: a scan of a body, and of all that it decodes to. `begin` may be asked twice.
    pub(super) async fn decoding<T: Send + 'static, S>(
        &self,
        codings: &Codings,
        body: &Bytes,
        begin: impl Fn(Layers) -> S,
    ) -> Result<T, Cause>
    where
        S: FnMut() -> Option<Result<T, &'static str>> + Send + 'static,
    {
        let layers = |most| codings.layers(body.clone(), most);
        let burden = self.sidecar.crew.burden();
        if codings.is_plain() {
            let slice = begin(layers(0));
            let crew = &self.sidecar.crew;
            let outcome = crew.scan(&burden, self.pool.number, slice).await?;
            return outcome.map_err(Cause::ContentEncoding);
        }
        if body.len() <= limits::ASIDE_BYTES {
            match self.aside(begin(layers(limits::DECODE_SHORT))).await? {
                Err(content::TOO_MUCH) => {}
                outcome => return outcome.map_err(Cause::ContentEncoding),
            }
        }
        let turn = self.sidecar.turn_to_decode().await?;
        let mut slice = begin(layers(limits::DECODE_BYTES));
        let outcome = self.aside(move || {
            let _turn = &turn;
            slice()
        });
        outcome.await?.map_err(Cause::ContentEncoding)
    }

    /// Does what is short here, and has the crew do what is not.
    pub(super) async fn aside_once<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cause> {
        if bytes <= limits::ASIDE_BYTES {
            return Ok(work());
        }
        Ok(self.sidecar.crew.once(self.pool.number, work).await?)
    }
}
