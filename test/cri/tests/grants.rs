//! What a pod's manifest gives to a guest, as a command and for every HTTP request.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Context, Result};
use cri_tests::{House, house};
use harness::{CriContainer, Pod, Version, free_address, get, listening, post};

/// Waits for the server of a pod; what it has said, if it does not come up.
async fn server(pod: &Pod<'_>, container: &CriContainer<'_>, port: u16) -> Result<SocketAddr> {
    let address = SocketAddr::new(
        pod.address().await?.context("the pod has an address")?,
        port,
    );
    listening(address)
        .await
        .with_context(|| format!("it wrote {:?}", container.logs()))?;
    Ok(address)
}

/// One server, asked several times: every request sees arguments, environment and volumes as a command would.
async fn every_request(
    house: &House,
    name: &str,
    args: bool,
    files: bool,
    writes: bool,
) -> Result<()> {
    let cri = house.containerd.cri().await?;
    let reference = house.pulled_guest(name, "wasip2").await?;
    let dir = house.containerd.scratch().dir().join(name);
    let (open, shut) = (dir.join("open"), dir.join("shut"));
    for dir in [&open, &shut] {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("file"), "in a volume")?;
    }
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777))?;
    let pod = cri.pod("sampan").run().await?;
    let container = pod
        .container(name, &reference)
        .command(["/", "one", "two words"])
        .env("WHO", name)
        .user(1234, 2345)
        .mount(&open, "/open", false)
        .mount(&shut, "/shut", true)
        .create()
        .await?;
    container.start().await?;
    let server = server(&pod, &container, 8080).await?;
    for round in 0..3 {
        let answer = get(server, "/").await?;
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("hello from {name}\n"))
        );
        let env = get(server, "/env").await?.text();
        assert!(
            env.lines().any(|line| line == format!("WHO={name}")),
            "{env}"
        );
        assert!(!env.contains("SAMPAN_CONFIG"), "{env}");
        if args {
            assert_eq!(get(server, "/args").await?.text(), "/\none\ntwo words\n");
        }
        let body = vec![round; 200_000];
        assert!(
            post(server, "/echo", body.clone()).await?.body == body,
            "{name}"
        );
        assert_eq!(get(server, "/status/418").await?.status, 418);
        if files {
            for volume in ["open", "shut"] {
                let answer = get(server, &format!("/file?path=/{volume}/file")).await?;
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (200, "in a volume")
                );
            }
            for path in [
                "/etc/passwd",
                "/proc/self/environ",
                "/shut/../../etc/passwd",
            ] {
                let answer = get(server, &format!("/file?path={path}")).await?;
                assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            }
        }
        if writes {
            let new = format!("/open/new-{round}");
            let answer = get(server, &format!("/write?path={new}&text=x")).await?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let made = fs::metadata(open.join(format!("new-{round}")))?;
            assert_eq!((made.uid(), made.gid()), (1234, 2345));
            assert_eq!(
                get(server, "/write?path=/shut/new&text=x").await?.status,
                403
            );
            assert!(!shut.join("new").exists());
        }
        get(server, "/stderr?text=heard").await?;
    }
    container.stop(30).await?;
    let exit = container.wait().await?;
    assert_eq!(exit.exit_code, 0, "{exit:?} {:?}", container.logs());
    let heard = container.logs()?.stderr.matches("heard").count();
    assert_eq!(heard, 3, "{:?}", container.logs());
    pod.remove().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_of_wasi_0_2_gets_the_grants_on_2() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    every_request(&house, "http-p2", true, true, true).await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_of_wasi_0_3_gets_the_grants_on_1_7() -> Result<()> {
    let Some(house) = house(Version::V1_7).await? else {
        return Ok(());
    };
    every_request(&house, "http-p3", true, true, false).await?;
    house.containerd.assert_clean().await
}

/// Large programs: an engine of another language in each.
#[tokio::test(flavor = "multi_thread")]
async fn http_of_javascript_and_python_gets_the_grants() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    every_request(&house, "http-js", true, false, false).await?;
    every_request(&house, "http-py", true, true, false).await?;
    house.containerd.assert_clean().await
}

/// The address comes from the annotation, else from the environment.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_listens_where_it_is_told() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let reference = house.pulled_guest("http-p2", "wasip2").await?;
    let pod = cri.pod("sampan").run().await?;
    let ported = pod
        .container("ported", &reference)
        .command(["/"])
        .env("PORT", "9001");
    let ported = ported.create().await?;
    let annotated = pod
        .container("annotated", &reference)
        .command(["/"])
        .env("PORT", "9002")
        .annotation("sampan.dev/http-listen", "0.0.0.0:9003");
    let annotated = annotated.create().await?;
    for (container, port) in [(&ported, 9001), (&annotated, 9003)] {
        container.start().await?;
        let server = server(&pod, container, port).await?;
        assert_eq!(get(server, "/").await?.text(), "hello from http-p2\n");
    }
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// A pod of the host's network has the host's addresses.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_the_hosts_network_answers() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let reference = house.pulled_guest("http-p2", "wasip2").await?;
    let address = free_address()?;
    let pod = cri.pod("sampan").host_network().run().await?;
    assert_eq!(pod.address().await?, None);
    let container = pod
        .container("server", &reference)
        .command(["/"])
        .env("SAMPAN_HTTP_LISTEN", &address.to_string())
        .create()
        .await?;
    container.start().await?;
    listening(address)
        .await
        .with_context(|| format!("it wrote {:?}", container.logs()))?;
    assert_eq!(get(address, "/").await?.text(), "hello from http-p2\n");
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// A command, with what the kubelet gives to every container beside what the manifest says.
async fn command(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let reference = house.pulled_guest("probe-p2", "wasip2").await?;
    let dir = house.containerd.scratch().dir();
    let (data, hosts, message) = (dir.join("data"), dir.join("hosts"), dir.join("message"));
    fs::create_dir(&data)?;
    fs::set_permissions(&data, PermissionsExt::from_mode(0o777))?;
    fs::write(data.join("file"), "in the volume\n")?;
    fs::write(&hosts, "127.0.0.1 localhost\n")?;
    fs::write(&message, "")?;
    fs::set_permissions(&message, PermissionsExt::from_mode(0o666))?;
    let pod = cri.pod("sampan").run().await?;
    let mut number = 0;
    let mut run = async |words: &[&str]| {
        number += 1;
        let container = pod
            .container(&format!("c{number}"), &reference)
            .command(["/"])
            .args(words.iter().copied())
            .env("WHO", "cri")
            .cwd("/data")
            .user(1234, 2345)
            .mount(&data, "/data", false)
            .mount(&hosts, "/etc/hosts", false)
            .mount(&message, "/dev/termination-log", false)
            .create()
            .await?;
        container.start().await?;
        let exit = container.wait().await?;
        let logs = container.logs()?;
        container.remove().await?;
        anyhow::Ok((exit.exit_code, logs.stdout))
    };
    assert_eq!(
        run(&["cat", "/data/file"]).await?,
        (0, "in the volume\n".into())
    );
    assert_eq!(
        run(&["cat", "/etc/hosts"]).await?,
        (0, "127.0.0.1 localhost\n".into())
    );
    let (code, env) = run(&["env"]).await?;
    assert!(
        code == 0 && env.lines().any(|line| line == "WHO=cri"),
        "{env}"
    );
    assert!(!env.contains("SAMPAN_CONFIG"), "{env}");
    assert_eq!(
        run(&["write", "/data/new", "x"]).await?,
        (0, "ok write /data/new\n".into())
    );
    let made = fs::metadata(data.join("new"))?;
    assert_eq!((made.uid(), made.gid()), (1234, 2345));
    assert_eq!(
        run(&["write", "/dev/termination-log", "the reason"])
            .await?
            .0,
        0
    );
    assert_eq!(fs::read_to_string(&message)?, "the reason");
    assert_eq!(
        run(&["stat", "/proc"]).await?,
        (1, "error: stat /proc: NOENT\n".into())
    );
    assert_eq!(
        run(&["stat", "/sys"]).await?,
        (1, "error: stat /sys: NOENT\n".into())
    );
    assert_eq!(
        run(&["stat", "/dev/null"]).await?,
        (1, "error: stat /dev/null: NOENT\n".into())
    );
    assert_eq!(
        run(&["cat", "/etc/passwd"]).await?,
        (1, "error: cat /etc/passwd: NOENT\n".into())
    );
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_what_the_manifest_says_on_2() -> Result<()> {
    command(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_what_the_manifest_says_on_1_7() -> Result<()> {
    command(Version::V1_7).await
}
