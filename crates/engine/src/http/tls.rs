//! TLS for requests that a guest sends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use plan::{Preopen, in_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use crate::command::say;
use crate::ending::line;

/// Where distributions keep their authorities in one file (Debian, Fedora, Alpine and openSUSE).
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];
/// Bytes of a file with certificates that are read; Mozilla's have 230 thousand.
const LONGEST: u64 = 4 << 20;
/// Files of a directory that are read.
const FILES: usize = 1024;

/// Whom a guest trusts: the authorities of Mozilla, compiled in; and those of its own filesystem, where `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` of its environment say, else in the usual places. Nothing of the node.
pub(crate) struct Roots {
    file: Option<PathBuf>,
    dir: Option<PathBuf>,
    /// What the guest sees: nothing else is read for it.
    preopens: Vec<Preopen>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Roots {
    pub(crate) fn new(env: &[(String, String)], preopens: &[Preopen]) -> Self {
        let get = |name: &str| {
            let found = env
                .iter()
                .find(|(known, value)| known == name && !value.is_empty());
            found.map(|(_, value)| PathBuf::from(value))
        };
        Self {
            file: get("SSL_CERT_FILE"),
            dir: get("SSL_CERT_DIR"),
            preopens: preopens.to_vec(),
            config: OnceLock::new(),
        }
    }

    /// What connects. The files are read at the first request with TLS.
    pub(crate) fn connector(&self) -> Result<TlsConnector, Error> {
        let config = match self.config.get() {
            Some(config) => config,
            None => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| Error::InternalError(Some(error.to_string())))?
                    .with_root_certificates(self.store())
                    .with_no_client_auth();
                self.config.get_or_init(|| Arc::new(config))
            }
        };
        Ok(TlsConnector::from(Arc::clone(config)))
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.into(),
        };
        match (&self.file, &self.dir) {
            (None, None) => {
                let bundle = BUNDLES
                    .iter()
                    .map(Path::new)
                    .find(|path| self.place(path).is_some_and(|place| place.is_file()));
                if let Some(bundle) = bundle {
                    self.add(&mut store, bundle, self.place(bundle));
                }
            }
            (file, dir) => {
                if let Some(file) = file {
                    self.add(&mut store, file, self.place(file));
                }
                for path in dir.iter().flat_map(|dir| self.files(dir)) {
                    self.add(&mut store, &path, Some(path.clone()));
                }
            }
        }
        store
    }

    /// Where a path of the guest's is; `None` if it does not see it.
    fn place(&self, path: &Path) -> Option<PathBuf> {
        in_process(&self.preopens, path)
    }

    /// The files of a directory of the guest's, where they are.
    fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let read = match self.place(dir) {
            Some(place) => std::fs::read_dir(place),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        match read {
            Ok(entries) => {
                let files = entries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .filter(|path| path.is_file());
                files.take(FILES).collect()
            }
            Err(error) => {
                say(&line(&format!(
                    "cannot read certificates from {}: {error}",
                    dir.display()
                )));
                Vec::new()
            }
        }
    }

    /// Adds what the file has. One that has nothing is told: the request that needs it would fail for a reason that
    /// nobody finds.
    fn add(&self, store: &mut RootCertStore, path: &Path, place: Option<PathBuf>) {
        let read = || -> std::io::Result<Vec<u8>> {
            use std::io::Read;
            let place = place.ok_or(std::io::ErrorKind::NotFound)?;
            let mut bytes = Vec::new();
            std::fs::File::open(place)?
                .take(LONGEST)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let reason = match read() {
            Ok(bytes) => {
                let found = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
                let (added, _) = store.add_parsable_certificates(found);
                if added > 0 || self.dir.is_some() {
                    return;
                }
                "it has no certificate in PEM form".to_owned()
            }
            Err(error) => error.to_string(),
        };
        say(&line(&format!(
            "cannot read certificates from {}: {reason}",
            path.display()
        )));
    }
}

#[cfg(test)]
mod tests {
    use plan::Access;

    use super::*;

    #[test]
    fn only_what_the_guest_sees_is_read() {
        let preopen = |path: &str| Preopen {
            path: path.to_owned(),
            source: None,
            access: Access::ReadOnly,
        };
        let sees = |roots: &Roots, path: &str| roots.place(Path::new(path)).is_some();
        let roots = Roots::new(&[], &[preopen("/certs"), preopen("/data")]);
        assert!(sees(&roots, "/certs/ca.pem") && sees(&roots, "/data/a/b"));
        for path in [
            "/etc/ssl/cert.pem",
            "/certs/../etc/passwd",
            "certs/ca.pem",
            "/certsx/ca.pem",
        ] {
            assert!(!sees(&roots, path), "{path}");
        }
        assert!(sees(&Roots::new(&[], &[preopen("/")]), "/etc/ssl/cert.pem"));
    }
}
