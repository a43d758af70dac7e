//! Says which user's rights it runs with. It is installed with the set-user-id bit, so that "no new privileges" shows.

fn main() {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .expect("the status has user ids");
    let effective = ids.split_whitespace().nth(1).expect("an effective user id");
    println!("Effective uid: {effective}");
}
