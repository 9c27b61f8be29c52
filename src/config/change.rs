//! The difference between two states of a UCI package, as commands for `uci batch`.
//!
//! Pure. Only named sections can differ: anonymous ones have no name that would still mean the same one a moment later.

use super::uci::{Section, Value, quote};

/// Why no commands can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// An anonymous section would change.
    #[error("a '{0}' section without a name would have to change: give it a name (uci rename)")]
    Anonymous(String),
    /// A value that a batch cannot carry.
    #[error("{0} has a line break in its value")]
    LineBreak(String),
}

/// Commands that turn `before` into `after`, a line each; empty if there is nothing to do.
///
/// # Errors
/// [`ChangeError`].
pub fn commands(package: &str, before: &[Section], after: &[Section]) -> Result<String, ChangeError> {
    let anonymous = |sections: &[Section]| -> Vec<(String, Options)> {
        let unnamed = sections.iter().filter(|section| section.name.is_none());
        unnamed.map(|section| (section.kind.clone(), options(section))).collect()
    };
    let (unnamed_before, unnamed_after) = (anonymous(before), anonymous(after));
    if unnamed_before != unnamed_after {
        let differs = unnamed_before.iter().zip(&unnamed_after).find(|(a, b)| a != b).map(|(a, _)| a);
        let kind = differs.or(unnamed_before.last()).or(unnamed_after.last()).map(|(kind, _)| kind.clone());
        return Err(ChangeError::Anonymous(kind.unwrap_or_default()));
    }
    let mut out = Batch { package, lines: String::new() };
    let find = |sections: &'_ [Section], name: &str| -> Option<usize> {
        sections.iter().position(|section| section.name.as_deref() == Some(name))
    };
    for old in before {
        let Some(name) = &old.name else { continue };
        match find(after, name).and_then(|n| after.get(n)) {
            Some(new) if new.kind == old.kind => out.update(name, old, new)?,
            Some(_) | None => out.line("delete", name, None, None)?,
        }
    }
    for new in after {
        let Some(name) = &new.name else { continue };
        let is_kept = find(before, name).and_then(|n| before.get(n)).is_some_and(|old| old.kind == new.kind);
        if !is_kept {
            out.line("set", name, None, Some(&new.kind))?;
            out.update(name, &Section { options: Vec::new(), ..new.clone() }, new)?;
        }
    }
    Ok(out.lines)
}

/// Whether two states of a package say the same; order counts among values of a list only.
#[must_use]
pub fn is_same(package: &str, a: &[Section], b: &[Section]) -> bool {
    commands(package, a, b).is_ok_and(|commands| commands.is_empty())
}

type Options = Vec<(String, Value)>;

/// The options in force, by name: the last `option` of a name wins.
fn options(section: &Section) -> Options {
    let mut options: Options = Vec::new();
    for option in &section.options {
        match options.iter_mut().find(|(name, _)| *name == option.name) {
            Some((_, value)) => value.clone_from(&option.value),
            None => options.push((option.name.clone(), option.value.clone())),
        }
    }
    options.sort_by(|(a, _), (b, _)| a.cmp(b));
    options
}

struct Batch<'a> {
    package: &'a str,
    lines: String,
}

impl Batch<'_> {
    fn update(&mut self, name: &str, old: &Section, new: &Section) -> Result<(), ChangeError> {
        let (old, new) = (options(old), options(new));
        for (option, _) in old.iter().filter(|(option, _)| !new.iter().any(|(other, _)| other == option)) {
            self.line("delete", name, Some(option), None)?;
        }
        for (option, value) in new.iter().filter(|entry| !old.contains(entry)) {
            match value {
                Value::One(value) => self.line("set", name, Some(option), Some(value))?,
                Value::List(values) => {
                    if old.iter().any(|(other, _)| other == option) {
                        self.line("delete", name, Some(option), None)?;
                    }
                    for value in values {
                        self.line("add_list", name, Some(option), Some(value))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        command: &str,
        section: &str,
        option: Option<&str>,
        value: Option<&str>,
    ) -> Result<(), ChangeError> {
        let mut place = format!("{}.{section}", self.package);
        if let Some(option) = option {
            place.push('.');
            place.push_str(option);
        }
        let value = match value {
            Some(value) if value.contains(['\n', '\r', '\0']) => return Err(ChangeError::LineBreak(place)),
            Some(value) => format!("={}", quote(value)),
            None => String::new(),
        };
        self.lines.push_str(&format!("{command} {place}{value}\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::uci::parse;

    fn change(before: &str, after: &str) -> String {
        commands("dhcp", &parse(before).unwrap(), &parse(after).unwrap()).unwrap()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let before = "config dnsmasq\n\toption local '/lan/'\n\nconfig tag 'a'\n\toption force '1'\n\tlist dhcp_option '43,x'\n\nconfig mac 'b'\n\toption mac 'x'\n";
        assert_eq!(change(before, before), "");
        let after = "config dnsmasq\n\toption local '/lan/'\n\nconfig tag 'a'\n\tlist dhcp_option '43,y'\n\tlist dhcp_option '66,it'\\''s'\n\nconfig host 'c'\n\toption name 'lion'\n";
        assert_eq!(
            change(before, after),
            "delete dhcp.a.force\ndelete dhcp.a.dhcp_option\nadd_list dhcp.a.dhcp_option='43,y'\n\
             add_list dhcp.a.dhcp_option='66,it'\\''s'\ndelete dhcp.b\nset dhcp.c='host'\nset dhcp.c.name='lion'\n"
        );
        let unnamed = "config dnsmasq\n\toption local '/lan/'\n";
        assert_eq!(change(after, unnamed), "delete dhcp.a\ndelete dhcp.c\n");
    }

    #[test]
    fn a_section_of_another_kind_is_made_anew() {
        let lines = change("config mac 'a'\n\toption mac 'x'\n", "config host 'a'\n\toption mac 'x'\n");
        assert_eq!(lines, "delete dhcp.a\nset dhcp.a='host'\nset dhcp.a.mac='x'\n");
    }

    #[test]
    fn the_order_of_options_does_not_count_but_that_of_a_list_does() {
        let section = |options: &str| format!("config tag 'a'\n{options}");
        let (ab, ba) = (section("\toption x '1'\n\toption y '2'\n"), section("\toption y '2'\n\toption x '1'\n"));
        assert!(is_same("dhcp", &parse(&ab).unwrap(), &parse(&ba).unwrap()));
        let (ab, ba) = (section("\tlist x '1'\n\tlist x '2'\n"), section("\tlist x '2'\n\tlist x '1'\n"));
        assert!(!is_same("dhcp", &parse(&ab).unwrap(), &parse(&ba).unwrap()));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let parse = |text| parse(text).unwrap();
        let refused = commands("dhcp", &parse("config dhcp\n"), &parse("config dhcp\n\toption ignore '1'\n"));
        assert_eq!(refused, Err(ChangeError::Anonymous("dhcp".to_owned())));
        let refused = commands("dhcp", &[], &parse("config tag 'a'\n\toption x 'one\ntwo'\n"));
        assert_eq!(refused, Err(ChangeError::LineBreak("dhcp.a.x".to_owned())));
    }
}
