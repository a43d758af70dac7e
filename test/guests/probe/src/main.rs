//! One subcommand per behaviour: `probe COMMAND [ARGUMENT]...`.
//!
//! Every command prints plain lines; a failure is one line `error: COMMAND SUBJECT: ERRNO` on
//! standard output (so that a test needs one stream only) and exit code 1. README.md of the guests
//! lists the commands. The same source is built for WASI 0.1 (`probe`) and 0.2 (`probe-p2`).

mod clock;
mod crash;
mod errno;
mod file;
mod net;
mod preopen;
mod stdio;

use errno::name;
use std::io;
use std::process::ExitCode;

/// What a command has to say when it worked, and nothing when it printed for itself.
type Answer = io::Result<Option<String>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match run(&arguments, &words) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // What and on which subject: the rest of the words may be a text to write.
            let subject = words[..words.len().min(2)].join(" ");
            println!("error: {subject}: {}", name(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String], words: &[&str]) -> Answer {
    match *words {
        [] => Ok(Some(format!("hello from {}", identity()))),

        ["args", ..] => Ok(Some(arguments.join("\n"))),
        ["env"] => Ok(Some(environment())),
        ["pwd"] => Ok(Some(std::env::current_dir()?.display().to_string())),
        ["initial-cwd"] => preopen::initial_cwd(),
        ["preopens"] => preopen::list(),

        ["cat", path] => file::cat(path),
        ["ls", path] => file::list(path),
        ["stat", path] => file::stat(path),
        ["readlink", path] => file::readlink(path),
        ["write", path, text] => file::write(path, text),
        ["append", path, text] => file::append(path, text),
        ["truncate", path, size] => file::truncate(path, number(size)?),
        ["opentrunc", path] => file::open_truncating(path),
        ["opentrunc-ro", path] => file::open_truncating_read_only(path),
        ["opencreate", path] => file::open_creating(path),
        ["mkdir", path] => file::make_directory(path),
        ["rm", path] => file::remove(path),
        ["rename", from, to] => file::rename(from, to),
        ["link", from, to] => file::link(from, to),
        ["symlink", target, path] => file::symlink(target, path),
        ["settimes", path] => file::set_times(path),
        ["settimes-fd", path] => file::set_times_of_open_file(path),

        ["cat-stdin"] => stdio::copy(),
        ["block"] => stdio::block(),
        ["flood", bytes] => stdio::flood(number(bytes)?),
        ["stderr", text] => stdio::stderr(text),
        ["both"] => stdio::both(),
        ["tty"] => stdio::terminals(),
        ["lines"] => stdio::lines(),

        ["exit", code] => std::process::exit(number(code)? as i32),
        ["exit-code", code] => crash::exit_with_code(number(code)? as u8),
        ["trap"] => core::arch::wasm32::unreachable(),
        ["panic"] => panic!("probe panics as asked"),
        ["div0"] => crash::divide_by_zero(),
        ["stack-overflow"] => crash::overflow_the_stack(),
        ["oom"] => crash::grow_until_refused(),
        ["oom", most] => crash::grow(number(most)?),
        ["grow-lines"] => crash::grow_by_lines(),
        ["spin"] => crash::spin(),

        ["sleep", milliseconds] => clock::sleep(number(milliseconds)?),
        ["tick", milliseconds] => clock::tick(number(milliseconds)?),
        ["clock"] => clock::read(),
        ["random", bytes] => clock::random(number(bytes)?),

        ["tcp-connect", host, port] => net::connect(host, port_number(port)?),
        ["tcp-listen", port] => net::listen("0.0.0.0", port_number(port)?),
        ["tcp-listen", address, port] => net::listen(address, port_number(port)?),
        ["udp-send", host, port] => net::send_datagram(host, port_number(port)?),
        ["resolve", host] => net::resolve(host),

        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "unknown command",
        )),
    }
}

/// Which build this is: tests that run several must see which one ran.
fn identity() -> &'static str {
    if cfg!(target_env = "p2") {
        "probe-p2"
    } else {
        "probe"
    }
}

fn environment() -> String {
    let lines: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    lines.join("\n")
}

fn number(text: &str) -> io::Result<u64> {
    text.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a number"))
}

fn port_number(text: &str) -> io::Result<u16> {
    text.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a port"))
}
