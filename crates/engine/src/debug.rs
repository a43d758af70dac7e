//! What a program carries for a debugger.

use wasmparser::{Parser, Payload};

/// Bytes of a program's debug sections (DWARF: custom sections `.debug_*`), in all its modules; 0 for what is no binary.
///
/// Nothing here reads them. The `name` section, from which backtraces have the names of functions, is not among them.
#[must_use]
pub fn debug_bytes(guest: &[u8]) -> usize {
    Parser::new(0)
        .parse_all(guest)
        .map_while(Result::ok)
        .map(|payload| match payload {
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                section.data().len()
            }
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_sections_are_counted_wherever_they_are() {
        let module = r#"(module (@custom ".debug_info" "12345") (@custom ".debug_line" "123") (@custom "name" "\00"))"#;
        let count = |text: &str| debug_bytes(&wat::parse_str(text).expect("valid text"));
        assert_eq!(count(module), 8);
        let component = format!(
            "(component (core {}",
            &module[1..].replacen("module", "module $m", 1)
        );
        assert_eq!(count(&format!("{component})")), 8);
        assert_eq!(count("(module)"), 0);
        assert_eq!(debug_bytes(b"(module)"), 0);
    }
}
