//! `sampan store verify`.

use std::collections::BTreeMap;
use std::fs::File;

use engine::Program;
use plan::{EngineSettings, GuestPlan};
use serde::Serialize;
use store::{Entry, Flaw, Store};

use crate::arguments::StoreVerify;
use crate::failure::{Failure, Kind, Outcome};
use crate::node::{self, Chosen};
use crate::output::{Screen, Text, bad, careful, good, strong};
use crate::pod::{Described, Given};

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    path: String,
    /// Compiled programs that are sound, and those of them that this tool's engine has taken.
    sound: usize,
    tried: usize,
    /// Those that are not.
    unsound: Vec<Unsound>,
    /// What lies among them and is none.
    strays: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unsound {
    digest: String,
    engine: String,
    reason: String,
    /// Whether it was removed.
    removed: bool,
}

/// What is said of a compiled program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its owner, rights and shape are right; another engine than this tool's has made it.
    Sound,
    /// This tool's engine has taken it too.
    Taken,
    /// It is not used, or would be refused.
    Unsound(String),
}

pub(super) fn verify(arguments: &StoreVerify, screen: &mut Screen<'_>) -> Outcome<u8> {
    let (chosen, store) = Chosen::existing(&arguments.place)?;
    let found = store.inventory().map_err(node::failed)?;
    let mut verified = Verified {
        path: chosen.path.display().to_string(),
        sound: 0,
        tried: 0,
        unsound: Vec::new(),
        strays: found
            .strays
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    for (entry, verdict) in judge(&store, &found.entries)? {
        match verdict {
            Verdict::Sound => verified.sound += 1,
            Verdict::Taken => {
                verified.sound += 1;
                verified.tried += 1;
            }
            Verdict::Unsound(reason) => {
                if arguments.repair {
                    store
                        .discard(&entry.guest, &entry.fingerprint)
                        .map_err(node::failed)?;
                }
                verified.unsound.push(Unsound {
                    digest: entry.guest.to_string(),
                    engine: entry.fingerprint.clone(),
                    reason,
                    removed: arguments.repair,
                });
            }
        }
    }
    screen.show(&verified, text(&verified))?;
    Ok(u8::from(
        verified.unsound.iter().any(|unsound| !unsound.removed),
    ))
}

/// Judges each compiled program of an inventory.
pub(crate) fn judge<'a>(store: &Store, entries: &'a [Entry]) -> Outcome<Vec<(&'a Entry, Verdict)>> {
    let engines = engines()?;
    let judged = entries.iter().map(|entry| {
        let verdict = match (&entry.flaw, engines.get(&entry.fingerprint)) {
            (Some(flaw @ (Flaw::Broken(_) | Flaw::Untrusted(_))), _) => {
                Verdict::Unsound(flaw.to_string())
            }
            (None, None) => Verdict::Sound,
            (None, Some(guest)) => {
                match store
                    .peek(&entry.guest, &entry.fingerprint)
                    .map_err(node::failed)?
                {
                    // Evicted meanwhile.
                    None => Verdict::Sound,
                    Some(artifact) => {
                        match Program::load(&File::from(artifact.into_descriptor()), guest) {
                            Ok(_) => Verdict::Taken,
                            Err(error) => {
                                Verdict::Unsound(format!("the engine refuses it: {error}"))
                            }
                        }
                    }
                }
            }
        };
        Ok((entry, verdict))
    });
    judged.collect()
}

/// This tool's engines, by their fingerprints: as nobody sets anything, and as one that counts fuel.
fn engines() -> Outcome<BTreeMap<String, GuestPlan>> {
    let described = Described {
        name: "verify".to_owned(),
        args: vec!["/".to_owned()],
        ..Described::default()
    };
    let plan = described
        .plan(&Given::default())?
        .map_err(|error| Failure::of(Kind::System, error))?;
    let guest = plan
        .guest
        .ok_or_else(|| Failure::new(Kind::System, "a container has no guest"))?;
    let engines = [false, true].map(|fuel| {
        let mut guest = guest.clone();
        guest.engine = EngineSettings {
            fuel,
            ..EngineSettings::default()
        };
        (engine::fingerprint(&guest.engine), guest)
    });
    Ok(engines.into())
}

fn text(verified: &Verified) -> Text {
    let mut text = Text::default();
    text.line(strong(&verified.path));
    text.row(
        "sound",
        good(&format!(
            "{} programs, of which this tool's engine has taken {} (the others are of other engines)",
            verified.sound, verified.tried
        )),
    );
    for unsound in &verified.unsound {
        let removed = if unsound.removed { " (removed)" } else { "" };
        text.row(
            "unsound",
            format!(
                "{} of {}: {}{removed}",
                unsound.digest,
                unsound.engine,
                bad(&unsound.reason)
            ),
        );
    }
    for stray in &verified.strays {
        text.row("no program", careful(stray));
    }
    text
}
