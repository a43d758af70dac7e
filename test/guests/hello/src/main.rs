//! The smallest real program: says which build it is, then its arguments and environment.
#![forbid(unsafe_code)]

/// `hello` for WASI 0.1, `hello-p2` for 0.2: tests that run several builds must see which one ran.
const NAME: &str = if cfg!(target_env = "p2") {
    "hello-p2"
} else {
    "hello"
};

fn main() {
    println!("hello from {NAME}");
    for (index, arg) in std::env::args().enumerate() {
        println!("arg {index} {arg}");
    }
    for (name, value) in std::env::vars() {
        println!("env {name}={value}");
    }
}
