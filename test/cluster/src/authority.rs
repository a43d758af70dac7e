//! The certificates of one cluster: an authority of its own, and what it has signed.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Signs certificates; its own is `ca.crt` in its directory.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of a certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Makes one in a directory that is there.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("make the authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("test-authority", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let own = params
            .self_signed(&key)
            .context("sign the authority's certificate")?;
        write(&dir.join("ca.crt"), &own.pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The file with its own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Makes `FILE.crt` and `FILE.key` for a user (of a group), good for a client and for a server of these names.
    pub(crate) fn issue(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[&str],
    ) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params =
            CertificateParams::new(names).with_context(|| format!("name the server {file}"))?;
        params.distinguished_name = name(user, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().with_context(|| format!("make the key of {user}"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign the certificate of {user}"))?;
        let identity = Identity {
            certificate: self.dir.join(format!("{file}.crt")),
            key: self.dir.join(format!("{file}.key")),
        };
        write(&identity.certificate, &certificate.pem())?;
        write(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }

    /// Makes a pair of keys by which the cluster signs the tokens of its service accounts: `FILE.key` and `FILE.pub`.
    pub(crate) fn signing_keys(&self, file: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate().context("make the key of the service accounts")?;
        let (private, public) = (
            self.dir.join(format!("{file}.key")),
            self.dir.join(format!("{file}.pub")),
        );
        write(&private, &key.serialize_pem())?;
        write(&public, &key.public_key_pem())?;
        Ok((private, public))
    }
}

fn name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
