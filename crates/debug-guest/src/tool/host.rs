//! `env`, `grants` and `top`: what the host says.

use std::io::{self, Write};

use super::{FAILED, Streams};
use crate::facts::Facts;

pub(super) fn env(names: &[&str], streams: &mut Streams<'_>) -> io::Result<u8> {
    if names.is_empty() {
        for (name, value) in std::env::vars_os() {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            writeln!(streams.output, "{name}={value}")?;
        }
        return Ok(0);
    }
    let mut code = 0;
    for name in names {
        match std::env::var_os(name) {
            Some(value) => writeln!(streams.output, "{}", value.to_string_lossy())?,
            // As printenv does it.
            None => code = FAILED,
        }
    }
    Ok(code)
}

/// What the program may touch. Values of variables are not shown: they may be secrets, and `env` shows them.
pub(super) fn grants(facts: Option<&Facts>, streams: &mut Streams<'_>) -> io::Result<u8> {
    let Some(facts) = known("grants", facts, streams) else {
        return Ok(FAILED);
    };
    let out = &mut *streams.output;
    writeln!(out, "directories")?;
    for (path, writable) in &facts.preopens {
        let access = if *writable {
            "read and write"
        } else {
            "read only"
        };
        writeln!(out, "  {path}  {access}")?;
    }
    writeln!(out, "working directory\n  {}", facts.cwd)?;
    writeln!(out, "environment (names)")?;
    let mut names: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        writeln!(out, "  {name}")?;
    }
    writeln!(out, "network")?;
    for line in &facts.network {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "limits")?;
    pairs(&facts.limits, out)?;
    Ok(0)
}

pub(super) fn top(facts: Option<&Facts>, streams: &mut Streams<'_>) -> io::Result<u8> {
    let Some(facts) = known("top", facts, streams) else {
        return Ok(FAILED);
    };
    pairs(&facts.usage, streams.output)?;
    Ok(0)
}

fn known<'a>(
    command: &str,
    facts: Option<&'a Facts>,
    streams: &mut Streams<'_>,
) -> Option<&'a Facts> {
    if facts.is_none() {
        let _ = writeln!(
            streams.errors,
            "{command}: the host has not told what it knows: this works by `kubectl exec` (or `ctr task exec`) only"
        );
    }
    facts
}

fn pairs(pairs: &[(String, String)], out: &mut dyn Write) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs {
        writeln!(out, "  {name:width$}  {value}")?;
    }
    Ok(())
}
