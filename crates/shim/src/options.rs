//! The runtime options of containerd's handler, from protobuf to our own type.

use anyhow::{Context, bail};
use containerd_shim::bootstrap::any_is;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use plan::{CgroupDriver, Options, Settings};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// `runtimeoptions.v1.Options` is not among the generated messages; its three fields are all
/// there is to it (containerd `api/types/runtimeoptions/v1/api.proto`).
const GENERIC: &str = "runtimeoptions.v1.Options";

/// The TOML that `runtimeoptions.v1.Options` carries or points to: the keys of the CRI handler.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Keys {
    #[serde(rename = "SystemdCgroup")]
    systemd_cgroup: bool,
    #[serde(rename = "BinaryName")]
    binary_name: String,
    /// containerd's own keys, which it leaves in the text that it passes on.
    #[serde(rename = "TypeUrl")]
    _type_url: Option<IgnoredAny>,
    #[serde(rename = "ConfigPath")]
    _config_path: Option<IgnoredAny>,
    #[serde(flatten)]
    settings: Settings,
}

/// Decodes the options of a Create request; none is fine.
pub(crate) fn decode(any: Option<&Any>) -> anyhow::Result<Options> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(Options::default());
    };
    let keys = if any_is::<RuncOptions>(any) {
        let options =
            RuncOptions::parse_from_bytes(&any.value).context("decode the runtime options")?;
        Keys {
            systemd_cgroup: options.systemd_cgroup,
            binary_name: options.binary_name,
            ..Keys::default()
        }
    } else if any.type_url.rsplit('/').next() == Some(GENERIC) {
        generic(&any.value)?
    } else {
        bail!(
            "runtime options of type `{}` are not understood (containerd.runc.v1.Options or {GENERIC})",
            any.type_url
        );
    };
    Ok(Options {
        cgroup_driver: if keys.systemd_cgroup {
            CgroupDriver::Systemd
        } else {
            CgroupDriver::Cgroupfs
        },
        runner: (!keys.binary_name.is_empty()).then(|| keys.binary_name.into()),
        settings: keys.settings,
    })
}

/// Field 2 is the path of a TOML file, field 3 its text; the text wins, as in containerd.
fn generic(message: &[u8]) -> anyhow::Result<Keys> {
    let mut path = None;
    let mut body = None;
    let mut input = containerd_shim_protos::protobuf::CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            0x12 => path = Some(input.read_string()?),
            0x1a => body = Some(input.read_bytes()?),
            other => containerd_shim_protos::protobuf::rt::skip_field_for_tag(other, &mut input)?,
        }
    }
    let text = match (body, path) {
        (Some(body), _) if !body.is_empty() => {
            String::from_utf8(body).context("ConfigBody of the runtime options")?
        }
        (_, Some(path)) if !path.is_empty() => std::fs::read_to_string(&path)
            .with_context(|| format!("read {path}, the ConfigPath of the runtime options"))?,
        _ => String::new(),
    };
    toml::from_str(&text).context("parse the runtime options")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic_any(field: u8, value: &[u8]) -> Any {
        let mut message = vec![field, u8::try_from(value.len()).expect("short")];
        message.extend_from_slice(value);
        Any {
            type_url: GENERIC.into(),
            value: message,
            ..Default::default()
        }
    }

    #[test]
    fn both_forms_say_who_manages_cgroups() {
        let runc = RuncOptions {
            systemd_cgroup: true,
            binary_name: "/opt/runner".into(),
            ..Default::default()
        };
        for url in [
            "containerd.runc.v1.Options",
            "type.googleapis.com/containerd.runc.v1.Options",
        ] {
            let any = Any {
                type_url: url.into(),
                value: runc.write_to_bytes().expect("encodes"),
                ..Default::default()
            };
            let options = decode(Some(&any)).expect("valid");
            assert_eq!(options.cgroup_driver, CgroupDriver::Systemd);
            assert_eq!(options.runner, Some("/opt/runner".into()));
        }
        let options = decode(Some(&generic_any(0x1a, b"SystemdCgroup = true"))).expect("valid");
        assert_eq!(options.cgroup_driver, CgroupDriver::Systemd);
        assert_eq!(decode(None).expect("none is fine"), Options::default());
    }

    #[test]
    fn every_other_key_is_a_setting() {
        let text = b"ConfigPath = '/x'\nnetwork = 'listen'\nmax-concurrent-requests = 5\npooling = false\nallow-outbound = ['a', 'b']";
        let options = decode(Some(&generic_any(0x1a, text))).expect("valid");
        let pairs = [
            ("network", "listen"),
            ("max-concurrent-requests", "5"),
            ("pooling", "false"),
            ("allow-outbound", "a,b"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(options.settings, Settings::new(pairs));
        assert_eq!(options.cgroup_driver, CgroupDriver::Cgroupfs);
    }

    #[test]
    fn a_wrong_form_or_file_is_told() {
        let any = Any {
            type_url: "some.Other".into(),
            ..Default::default()
        };
        assert!(format!("{:#}", decode(Some(&any)).expect_err("unknown")).contains("some.Other"));
        let error = format!(
            "{:#}",
            decode(Some(&generic_any(0x12, b"/does/not/exist"))).expect_err("missing")
        );
        assert!(error.contains("/does/not/exist"), "{error}");
        assert!(decode(Some(&generic_any(0x1a, b"SystemdCgroup = 3"))).is_err());
    }
}
