//! etcd, the API, the controllers and the scheduler, on ports of 127.0.0.1 alone.
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::until;
use kube::Client;
use tools::Kubernetes;

use crate::authority::{Authority, Identity};
use crate::component::Component;
use crate::door::{self, Door};
use crate::{NODE, kubeconfig, ports};

/// How long the API may take to be ready.
const DEADLINE: Duration = Duration::from_secs(120);

/// What runs, and what the node needs of it.
pub(crate) struct ControlPlane {
    pub(crate) components: Vec<Component>,
    pub(crate) authority: Authority,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubelet_kubeconfig: PathBuf,
    pub(crate) kubelet: Identity,
    pub(crate) client: Client,
    pub(crate) door: Door,
}

impl ControlPlane {
    /// Starts all of it in `dir`; the API is ready when this returns. Of the subnet of Services the first address is the
    /// API's.
    pub(crate) async fn start(
        programs: &Kubernetes,
        dir: &Path,
        services: Ipv4Addr,
    ) -> Result<Self> {
        let pki = dir.join("pki");
        std::fs::create_dir_all(&pki).with_context(|| format!("create {}", pki.display()))?;
        let authority = Authority::new(&pki)?;
        let masters = Some("system:masters");
        let server = authority.issue(
            "apiserver",
            "kube-apiserver",
            None,
            &[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "127.0.0.1",
                &door::address(services).to_string(),
            ],
        )?;
        let to_kubelet = authority.issue("apiserver-kubelet", "kube-apiserver", masters, &[])?;
        let admin = authority.issue("admin", "admin", masters, &[])?;
        let controllers =
            authority.issue("controllers", "system:kube-controller-manager", None, &[])?;
        let scheduler = authority.issue("scheduler", "system:kube-scheduler", None, &[])?;
        let node_user = format!("system:node:{NODE}");
        let names = [NODE, "127.0.0.1"];
        let kubelet = authority.issue("kubelet", &node_user, Some("system:nodes"), &names)?;
        let (sign, verify) = authority.signing_keys("service-accounts")?;

        let [clients, peers, api, controllers_port, scheduler_port] = ports::free()?;
        let config = |name, identity| kubeconfig::write(dir, name, api, &authority, identity);
        let admin_config = config("admin", &admin)?;
        let controllers_config = config("controllers", &controllers)?;
        let scheduler_config = config("scheduler", &scheduler)?;
        let kubelet_kubeconfig = config("kubelet", &kubelet)?;

        let mut etcd = Component::start(
            "etcd",
            dir,
            Command::new(&programs.etcd)
                .arg("--data-dir")
                .arg(dir.join("etcd"))
                .args(["--name", "test"])
                .arg(format!("--listen-client-urls=http://127.0.0.1:{clients}"))
                .arg(format!(
                    "--advertise-client-urls=http://127.0.0.1:{clients}"
                ))
                .arg(format!("--listen-peer-urls=http://127.0.0.1:{peers}"))
                .arg(format!(
                    "--initial-advertise-peer-urls=http://127.0.0.1:{peers}"
                ))
                .arg(format!("--initial-cluster=test=http://127.0.0.1:{peers}"))
                // Nothing of it is needed after a crash.
                .arg("--unsafe-no-fsync"),
        )?;
        let mut apiserver = Component::start(
            "kube-apiserver",
            dir,
            Command::new(&programs.apiserver)
                .arg(format!("--etcd-servers=http://127.0.0.1:{clients}"))
                .args([
                    "--bind-address=127.0.0.1",
                    "--advertise-address=10.96.255.254",
                ])
                .arg(format!("--secure-port={api}"))
                // It would refuse to publish a loopback address as the endpoint of `kubernetes`.
                .arg("--endpoint-reconciler-type=none")
                .arg(format!("--service-cluster-ip-range={services}/24"))
                .args(["--authorization-mode=Node,RBAC", "--allow-privileged=true"])
                .arg("--enable-admission-plugins=NodeRestriction")
                .arg(flag("client-ca-file", &authority.certificate()))
                .arg(flag("tls-cert-file", &server.certificate))
                .arg(flag("tls-private-key-file", &server.key))
                .arg(flag("cert-dir", &pki))
                .arg(flag("kubelet-client-certificate", &to_kubelet.certificate))
                .arg(flag("kubelet-client-key", &to_kubelet.key))
                .arg(flag(
                    "kubelet-certificate-authority",
                    &authority.certificate(),
                ))
                .arg("--kubelet-preferred-address-types=Hostname")
                .arg("--service-account-issuer=https://kubernetes.default.svc")
                .arg(flag("service-account-key-file", &verify))
                .arg(flag("service-account-signing-key-file", &sign)),
        )?;

        let client = kubeconfig::client(&admin_config).await?;
        until("the API to be ready", DEADLINE, async || {
            etcd.running()?;
            apiserver.running()?;
            let request = http_get("/readyz");
            Ok(client.request_text(request).await.ok().map(drop))
        })
        .await
        .with_context(|| format!("the API's log ends with:\n{}", apiserver.tail()))?;

        let door = Door::open(services, api).await?;
        let controllers = Component::start(
            "kube-controller-manager",
            dir,
            Command::new(&programs.controller_manager)
                .args(own(&controllers_config, controllers_port, &pki))
                .arg("--use-service-account-credentials=true")
                .arg(flag("service-account-private-key-file", &sign))
                .arg(flag("root-ca-file", &authority.certificate()))
                // A machine that builds something beside the tests is slow, which is no reason to evict its pods.
                .args(["--node-monitor-grace-period=120s", "--kube-api-qps=100"])
                .arg("--kube-api-burst=200"),
        )?;
        let scheduler = Component::start(
            "kube-scheduler",
            dir,
            Command::new(&programs.scheduler).args(own(&scheduler_config, scheduler_port, &pki)),
        )?;
        Ok(Self {
            components: vec![scheduler, controllers, apiserver, etcd],
            authority,
            kubeconfig: admin_config,
            kubelet_kubeconfig,
            kubelet,
            client,
            door,
        })
    }
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
    request
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// The flags that controllers and scheduler share. There is one of each, so nobody has to be elected.
fn own(kubeconfig: &Path, port: u16, pki: &Path) -> Vec<String> {
    vec![
        flag("kubeconfig", kubeconfig),
        flag("authentication-kubeconfig", kubeconfig),
        flag("authorization-kubeconfig", kubeconfig),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        "--leader-elect=false".to_owned(),
        flag("cert-dir", pki),
    ]
}
