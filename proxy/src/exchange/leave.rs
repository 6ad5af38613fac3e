//! The last look at a request of which every part was judged: how much it is, and what it adds to those before it.

use super::Exchange;
use crate::credential::Credential;
use crate::message::RequestHead;
use crate::pieces::Found;
use crate::policy::Route;
use crate::verdict::Cause;

impl Exchange<'_> {
    /// The last judge: what it lets pass it remembers as gone. Behind our own credential, which is meant to leave.
    pub(super) fn check_pieces(
        &self,
        route: &Route,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<(), Cause> {
        if !route.detectors.known_secrets || self.sidecar.pieces.is_empty() {
            return Ok(());
        }
        let own = self.ruling.credentials.get(&route.index);
        let pieces = &self.sidecar.pieces;
        let mut found = Found::new();
        // What an operator approved is meant to leave too.
        let approved = self.entry.approved_values();
        if !self.head_is_known {
            pieces.find_in_head(head, own.map(Credential::name), &approved, &mut found);
        }
        // What the scanner remembers has none; what it has just read it may remember now.
        if !self.body_is_known && !self.ruling.scanners.of(route.detectors).knows(body) {
            // Which takes a hundredth of what a scan does.
            pieces.find_beside(body, &approved, &mut found);
        }
        pieces.release(&found)
    }

    /// As for a request, of one message of many.
    pub(super) fn check_message(
        &self,
        route: &Route,
        length: usize,
        plain: &[u8],
    ) -> Result<(), Cause> {
        self.sidecar.volumes.charge(route, length)?;
        self.sidecar.metrics.request_bytes.inc_by(length as u64);
        let scanner = self.ruling.scanners.of(route.detectors);
        if !route.detectors.known_secrets || scanner.knows(plain) {
            return Ok(());
        }
        let mut found = Found::new();
        self.sidecar.pieces.find(plain, &mut found);
        self.sidecar.pieces.release(&found)
    }

    pub(super) fn charge(
        &self,
        route: &Route,
        head: &RequestHead,
        body: usize,
    ) -> Result<(), Cause> {
        let fields = head.headers.iter();
        let head = head.target.len()
            + fields
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
        self.sidecar.volumes.charge(route, head + body)?;
        self.sidecar.metrics.request_bytes.inc_by(body as u64);
        Ok(())
    }
}
