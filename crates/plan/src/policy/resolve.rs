use std::time::Duration;

use crate::policy::outbound::{Outbound, Rule};
use crate::policy::reading::{Layers, Reading, Source};
use crate::policy::setting::{Bytes, Count, DumpSize, Place, StackSize, Word};
use crate::policy::{
    ACCESS_LOG, ALLOW_OUTBOUND, CONFIG_DIR, COREDUMP, COREDUMP_MAX_BYTES, DISABLE_PROPOSALS, FUEL,
    HTTP_LISTEN, LOG_FORMAT, LOG_REQUEST_ID, MAX_CONCURRENT_REQUESTS, MAX_EXECS, MAX_INSTANCE_AGE,
    MAX_REQUEST_BODY, MAX_STACK, NAME_LOOKUP, NETWORK, ON_TERM, POOLING, REQUEST_TIMEOUT,
    REUSE_INSTANCES, ROOTFS, Setting,
};
use crate::{AccessLog, EngineSettings, LogFormat, Network, Reach, RootAccess, Serving};

/// What the layers say, all of it decided and typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where an HTTP guest is to listen: the place that says it, and the text.
    pub http_listen: Option<(String, String)>,
    /// What the guest may reach.
    pub network: Network,
    /// Why an HTTP guest cannot listen, if it cannot.
    pub deaf: Option<String>,
    /// What it sees at `/`.
    pub rootfs: RootAccess,
    /// Where `wasi:config` finds its values.
    pub config_dir: Option<String>,
    /// What is run before it ends.
    pub on_term: Option<String>,
    /// Where it leaves core dumps: the place that says it, and the directory.
    pub coredump: Option<(String, String)>,
    /// Bytes of one.
    pub coredump_max_bytes: u64,
    /// How its lines are written.
    pub log_format: LogFormat,
    /// Bytes of its stack.
    pub stack: u64,
    /// Units of work that it has.
    pub fuel: Option<u64>,
    /// Processes that are executed beside it at once.
    pub execs: u32,
    /// How requests are served.
    pub serving: Serving,
    /// How its code is made and its instances are.
    pub engine: EngineSettings,
}

impl Policy {
    /// Decides what holds.
    ///
    /// # Errors
    /// All that is wrong: the place that says it, and the reason.
    pub fn resolve(layers: Layers<'_>) -> Result<Self, Vec<(String, String)>> {
        let mut reading = Reading {
            layers,
            faults: Vec::new(),
        };
        reading.refuse_unknown();
        let (network, deaf) = network(&mut reading);
        let reuse = reading.optional::<Count<1, 1_000_000>>(&REUSE_INSTANCES);
        let most = reading
            .ceiling::<Count<1, 1_000_000>>(&REUSE_INSTANCES)
            .map_or(u32::MAX, |count| count.0);
        let reuse = |own: u32| reuse.map_or(own.min(most), |count| count.0);
        let fuel = reading.take::<Option<u64>>(&FUEL);
        let mut disabled = reading.take::<Vec<crate::Proposal>>(&DISABLE_PROPOSALS);
        disabled.sort_unstable();
        disabled.dedup();
        let policy = Self {
            http_listen: reading
                .raw(&HTTP_LISTEN)
                .map(|(_, place, text)| (place, text)),
            network,
            deaf,
            rootfs: reading.take(&ROOTFS),
            config_dir: reading.optional::<Place>(&CONFIG_DIR).map(|place| place.0),
            on_term: reading.optional::<Word>(&ON_TERM).map(|word| word.0),
            coredump: reading
                .asked::<Place>(&COREDUMP)
                .map(|(_, place, dir)| (place, dir.0)),
            coredump_max_bytes: reading.take::<DumpSize>(&COREDUMP_MAX_BYTES).0,
            log_format: reading.take(&LOG_FORMAT),
            stack: reading.take::<StackSize>(&MAX_STACK).0,
            fuel,
            execs: reading.take::<Count<1, 1000>>(&MAX_EXECS).0,
            serving: Serving {
                request_timeout: reading.take::<Option<Duration>>(&REQUEST_TIMEOUT),
                max_requests: reading.take::<Count<1, 20_000>>(&MAX_CONCURRENT_REQUESTS).0,
                max_body: reading
                    .take::<Option<Bytes>>(&MAX_REQUEST_BODY)
                    .map(|bytes| bytes.0),
                reuse_0_2: reuse(Serving::REUSE_0_2),
                reuse_0_3: reuse(Serving::REUSE_0_3),
                max_age: reading.take::<Option<Duration>>(&MAX_INSTANCE_AGE),
                access_log: reading.take::<AccessLog>(&ACCESS_LOG) == AccessLog::Json,
                log_request_id: reading.take(&LOG_REQUEST_ID),
            },
            engine: EngineSettings {
                fuel: fuel.is_some(),
                disabled,
                pooling: reading.take(&POOLING),
            },
        };
        if reading.faults.is_empty() {
            Ok(policy)
        } else {
            Err(reading.faults)
        }
    }
}

/// `network` and `allow-outbound` make one answer, and their ceilings one ceiling.
fn network(reading: &mut Reading<'_>) -> (Network, Option<String>) {
    let asked = reading.asked::<Reach>(&NETWORK);
    let ceiling = reading.ceiling::<Reach>(&NETWORK).unwrap_or(Reach::All);
    let (source, place, reach) = match asked {
        Some((_, place, reach)) if !reach.within(&ceiling) => {
            reading.beyond(&NETWORK, place.clone());
            (Source::Table, place, ceiling)
        }
        Some(asked) => asked,
        // What nobody asked for is as much as the ceiling gives.
        None => (
            Source::Table,
            reading.layers.node.place("ceilings", NETWORK.name),
            ceiling,
        ),
    };
    // What the node allows at most.
    let most = match reading.ceiling::<Vec<Rule>>(&ALLOW_OUTBOUND) {
        Some(rules) => Outbound::Listed(rules),
        None if ceiling == Reach::All => Outbound::All,
        None => Outbound::Listed(Vec::new()),
    };
    let listed = reading
        .asked::<Vec<Rule>>(&ALLOW_OUTBOUND)
        // Who closes the network closes it also for what a weaker layer has listed.
        .filter(|(whose, _, _)| *whose <= source || reach == Reach::All);
    let outbound = match (listed, most) {
        (Some((_, place, rules)), Outbound::Listed(most)) if !rules.within(&most) => {
            beyond_outbound(reading, place, &rules, &most);
            Outbound::Listed(Vec::new())
        }
        (Some((_, _, rules)), _) => Outbound::Listed(rules),
        (None, most) if reach == Reach::All => most,
        (None, Outbound::Listed(most)) if source == Source::Table => Outbound::Listed(most),
        (None, _) => Outbound::Listed(Vec::new()),
    };
    let listen = reach >= Reach::Listen;
    let deaf = (!listen)
        .then(|| format!("{place}: `none` leaves an HTTP guest nowhere to listen; `listen` would"));
    let name_lookup = reading.take(&NAME_LOOKUP);
    (
        Network {
            listen,
            outbound,
            name_lookup,
        },
        deaf,
    )
}

/// Names the entries that the ceiling does not cover, and the ceiling that holds.
fn beyond_outbound(reading: &mut Reading<'_>, place: String, rules: &[Rule], most: &[Rule]) {
    let node = reading.layers.node;
    let beyond: Vec<String> = rules
        .iter()
        .filter(|rule| !most.iter().any(|most| most.covers(rule)))
        .map(|rule| format!("`{rule}`"))
        .collect();
    let knob = if node.ceilings.get(ALLOW_OUTBOUND.name).is_some() {
        &ALLOW_OUTBOUND
    } else {
        &NETWORK
    };
    let ceiling = node.ceilings.get(knob.name).unwrap_or_default();
    reading.fault(
        place,
        format!(
            "{} is beyond the node's ceiling `{ceiling}` ({})",
            beyond.join(", "),
            node.place("ceilings", knob.name)
        ),
    );
}

#[cfg(test)]
#[path = "resolve/tests.rs"]
mod tests;
