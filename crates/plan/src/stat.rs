/// When a process started, in clock ticks since the machine did, of what `/proc/PID/stat` says (`proc_pid_stat(5)`, field 22):
/// a number may have been given to another process. `None` for one that has ended and nobody has asked how.
#[must_use]
pub fn start_time(stat: &str) -> Option<u64> {
    // The second field is the name in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::start_time;

    #[test]
    fn a_process_is_known_by_its_start() {
        let stat =
            |name: &str, state: char| format!("7 ({name}) {state} 1{} 4711 0", " 0".repeat(17));
        assert_eq!(start_time(&stat("a) Z 1 (b", 'S')), Some(4711));
        assert_eq!(start_time(&stat("sh", 'Z')), None);
        assert_eq!(start_time("7 (sh) S 1"), None);
        assert_eq!(start_time(""), None);
    }
}
