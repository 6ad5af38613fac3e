//! What is counted, as Prometheus text. Labels come from our own tables, never from the agent.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::audit::Record;
use crate::sidecar::Sidecar;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    verdict: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuleLabels {
    rule: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HelloLabels {
    why: &'static str,
}

/// Counters that connections add to.
#[derive(Default)]
pub struct Metrics {
    verdicts: Family<VerdictLabels, Counter>,
    findings: Family<RuleLabels, Counter>,
    hellos: Family<HelloLabels, Counter>,
    pub connections: Counter,
    pub request_bytes: Counter,
    pub echoes: Counter,
    pub reloads: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A record that is about to be written.
    pub fn count(&self, record: &Record) {
        let (verdict, code) = (record.verdict, record.code);
        self.verdicts
            .get_or_create(&VerdictLabels { verdict, code })
            .inc();
        if let Some(rule) = record.rule {
            self.findings
                .get_or_create(&RuleLabels { rule, verdict })
                .inc();
        }
    }

    /// A connection of smolvm's interceptor that was not let in.
    pub fn refuse_hello(&self, why: &'static str) {
        self.hellos.get_or_create(&HelloLabels { why }).inc();
    }

    /// All of it at this moment. What has a state elsewhere is read there.
    pub fn text(&self, sidecar: &Sidecar) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("bot_bottle");
        registry.register(
            "verdicts",
            "Records of verdicts, by verdict and code",
            self.verdicts.clone(),
        );
        registry.register(
            "findings",
            "Findings, by rule and what became of them",
            self.findings.clone(),
        );
        registry.register(
            "connections",
            "Connections of agents that were accepted",
            self.connections.clone(),
        );
        registry.register(
            "interceptor_refused",
            "Connections of smolvm's interceptor that were not let in, by what was wrong with them",
            self.hellos.clone(),
        );
        registry.register_with_unit(
            "request",
            "Request bodies that were sent on",
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        registry.register(
            "echoes_scrubbed",
            "Places where a response repeated an injected credential",
            self.echoes.clone(),
        );
        registry.register(
            "policy_reloads",
            "Policies that were put in force after the start",
            self.reloads.clone(),
        );
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(
            "connections_open",
            "Connections of agents that are open",
            gauge(sidecar.tasks.len()),
        );
        if let Some(desk) = &sidecar.desk {
            let (parked, bytes, approvals) = desk.load();
            registry.register(
                "parked_requests",
                "Requests that wait for an operator",
                gauge(parked),
            );
            registry.register_with_unit(
                "parked",
                "Bodies of requests that wait",
                Unit::Bytes,
                gauge(bytes),
            );
            registry.register("approvals", "Approvals that hold", gauge(approvals));
        }
        let counter = ConstCounter::new;
        registry.register(
            "audit_records",
            "Records written to the audit log",
            counter(sidecar.audit.written()),
        );
        registry.register(
            "audit_records_lost",
            "Records that could not be written; each stands for something that was denied",
            counter(sidecar.audit.lost()),
        );
        registry.register(
            "audit_broken",
            "1 while the audit log cannot be written and everything is denied",
            gauge(usize::from(sidecar.audit.is_broken())),
        );
        registry.register(
            "log_lines_suppressed",
            "Lines that the log left out because there were too many",
            counter(sidecar.log_limit.left_out()),
        );
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}
