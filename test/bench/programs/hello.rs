//! The guest of every contestant: one source, built as a static native program and as a WASI 0.1 module.
//!
//! `hello` prints one line and ends. `hello hold` prints one line and stays until it is killed.

fn main() {
    println!("hello");
    if std::env::args().nth(1).as_deref() == Some("hold") {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
}
