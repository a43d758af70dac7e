/// What the host tells the debug guest about the container that it runs in, all of it already in words: the guest only
/// lays it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The container's working directory.
    pub cwd: String,
    /// Directories, and whether they may be written to.
    pub preopens: Vec<(String, bool)>,
    /// The network policy, a line each.
    pub network: Vec<String>,
    /// Limits by name, as in `memory`, `125829120 bytes`.
    pub limits: Vec<(String, String)>,
    /// What the container uses now, by name, likewise.
    pub usage: Vec<(String, String)>,
}

/// How the argument begins that carries them: nobody types this.
const MARK: &str = "\u{1f}sampan-facts\n";

impl Facts {
    /// The facts as the guest's last argument.
    #[must_use]
    pub fn to_argument(&self) -> String {
        let mut text = MARK.to_owned();
        let mut line = |parts: &[&str]| {
            let parts: Vec<String> = parts.iter().map(|part| escape(part)).collect();
            text.push_str(&parts.join("\t"));
            text.push('\n');
        };
        line(&["cwd", &self.cwd]);
        for (path, writable) in &self.preopens {
            line(&["preopen", path, if *writable { "rw" } else { "ro" }]);
        }
        for policy in &self.network {
            line(&["network", policy]);
        }
        for (name, value) in &self.limits {
            line(&["limit", name, value]);
        }
        for (name, value) in &self.usage {
            line(&["usage", name, value]);
        }
        text
    }

    /// Takes them from the end of the arguments, if they are there. Lines that this version does not know are left out.
    #[must_use]
    pub fn take(arguments: &mut Vec<String>) -> Option<Self> {
        let last = arguments.pop_if(|last| last.starts_with(MARK))?;
        let mut facts = Self::default();
        for line in last[MARK.len()..].lines() {
            let parts: Vec<String> = line.split('\t').map(unescape).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            match parts[..] {
                ["cwd", cwd] => cwd.clone_into(&mut facts.cwd),
                ["preopen", path, access] => {
                    facts.preopens.push((path.to_owned(), access == "rw"));
                }
                ["network", policy] => facts.network.push(policy.to_owned()),
                ["limit", name, value] => facts.limits.push((name.to_owned(), value.to_owned())),
                ["usage", name, value] => facts.usage.push((name.to_owned(), value.to_owned())),
                _ => {}
            }
        }
        Some(facts)
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\t', "\\t")
        .replace('\r', "\\r")
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('r') => plain.push('\r'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_travel_in_one_argument() {
        let facts = Facts {
            cwd: "/a b\tc\nd\\e".into(),
            preopens: vec![("/".into(), false), ("/data\\n".into(), true)],
            network: vec!["all".into()],
            limits: vec![("memory".into(), "1 byte".into())],
            usage: vec![("pids".into(), "3".into())],
        };
        let mut arguments = vec!["ls".to_owned(), facts.to_argument()];
        assert_eq!(Facts::take(&mut arguments), Some(facts));
        assert_eq!(arguments, ["ls"]);
        assert_eq!(
            Facts::take(&mut arguments),
            None,
            "an ordinary argument stays"
        );
        assert_eq!(arguments, ["ls"]);
    }
}
