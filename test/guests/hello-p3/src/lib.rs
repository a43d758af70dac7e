//! A `wasi:cli` command of WASI 0.3: asynchronous `run`, output through a stream.
//!
//! Arguments: none, or `exit N` (0 to 255), or `fail`, or `cat FILE`, or `trap`.
#![forbid(unsafe_code)]

use wasip3::cli::{environment, exit, stdout};

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let mut text = String::from("hello from hello-p3\n");
        let arguments = environment::get_arguments();
        for (index, argument) in arguments.iter().enumerate() {
            text.push_str(&format!("arg {index} {argument}\n"));
        }
        for (name, value) in environment::get_environment() {
            text.push_str(&format!("env {name}={value}\n"));
        }
        print(text.into_bytes()).await;

        let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        match words[..] {
            ["exit", code] => {
                exit::exit_with_code(code.parse().unwrap_or(1));
                Ok(())
            }
            ["cat", path] => match std::fs::read(path) {
                Ok(bytes) => {
                    print(bytes).await;
                    Ok(())
                }
                Err(error) => {
                    print(format!("error: cat {path}: {error}\n").into_bytes()).await;
                    Err(())
                }
            },
            ["fail"] => Err(()),
            ["trap"] => core::arch::wasm32::unreachable(),
            _ => Ok(()),
        }
    }
}

/// Writes all of `bytes` to standard output and waits until the host has taken them.
async fn print(bytes: Vec<u8>) {
    let (mut sender, receiver) = wasip3::wit_stream::new();
    let (written, ()) = futures::join!(
        async { stdout::write_via_stream(receiver).await },
        async move {
            let left = sender.write_all(bytes).await;
            assert!(left.is_empty(), "standard output closed early");
        }
    );
    written.expect("standard output failed");
}
