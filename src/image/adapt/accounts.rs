//! Lines of passwd(5), shadow(5), group(5) and what else goes by a user's name: text in, text out.

/// First and last number that Debian gives to people (Debian Policy §9.2.2).
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59999;
/// The number of the first user; everything on Raspberry Pi OS that asks for "the user" asks for it.
pub(super) const FIRST: u32 = 1000;

/// A line of /etc/passwd, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Relative to the root.
    pub(super) home: String,
}

impl User {
    pub(super) fn is_person(&self) -> bool {
        PEOPLE.contains(&self.uid)
    }
}

/// The users of a passwd file; lines that are none are passed over.
pub(super) fn users(passwd: &str) -> impl Iterator<Item = User> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields.as_slice() else { return None };
        let home = home.trim_matches('/').to_owned();
        Some(User { name: (*name).to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    })
}

/// The user of that name.
pub(super) fn user(passwd: &str, name: &str) -> Option<User> {
    users(passwd).find(|user| user.name == name)
}

/// The first ordinary user: number 1000, else the lowest above it.
pub(super) fn first_user(passwd: &str) -> Option<User> {
    users(passwd).filter(User::is_person).min_by_key(|user| user.uid)
}

/// The name of the group with that number.
pub(super) fn group_name(group: &str, gid: u32) -> Option<String> {
    let fields = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut groups = fields.filter_map(|f| Some((f.first()?.to_owned(), f.get(2)?.parse::<u32>().ok()?)));
    groups.find(|(_, number)| *number == gid).map(|(name, _)| name.to_owned())
}

/// Whether a file of lines `NAME:…` has that name.
pub(super) fn has_key(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split(':').next() == Some(name))
}

/// The lowest number from 1000 on that neither a user nor a group has.
pub(super) fn free_number(passwd: &str, group: &str) -> u32 {
    let groups = group.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
    let taken: std::collections::BTreeSet<u32> = users(passwd).map(|user| user.uid).chain(groups).collect();
    PEOPLE.clone().find(|number| !taken.contains(number)).unwrap_or(FIRST)
}

/// Lines changed one by one; each is given as its fields.
fn edit(text: &str, mut change: impl FnMut(&mut Vec<String>)) -> String {
    let mut edited = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        change(&mut fields);
        edited.push_str(&fields.join(":"));
        edited.push_str(end);
    }
    edited
}

/// The line of `old`, in a file of lines `NAME:…`, becomes that of `new`.
pub(super) fn rename_key(text: &str, old: &str, new: &str) -> String {
    edit(text, |fields| {
        if let Some(name) = fields.first_mut().filter(|name| *name == old) {
            new.clone_into(name);
        }
    })
}

/// The home of a user, as /etc/passwd has it.
pub(super) fn set_home(passwd: &str, name: &str, home: &str) -> String {
    edit(passwd, |fields| {
        if let [own, .., old, _] = fields.as_mut_slice()
            && own == name
        {
            home.clone_into(old);
        }
    })
}

/// A member of groups gets another name; `field` is that of the members: the last of group(5), the last two of gshadow(5).
pub(super) fn rename_member(text: &str, old: &str, new: &str, fields_of_members: usize) -> String {
    edit(text, |fields| {
        let others = fields.len().saturating_sub(fields_of_members).max(1);
        for members in fields.iter_mut().skip(others) {
            let renamed: Vec<&str> = members.split(',').map(|name| if name == old { new } else { name }).collect();
            *members = renamed.join(",");
        }
    })
}

/// Makes a user member of those of the groups that there are.
pub(super) fn add_to_groups(group: &str, name: &str, groups: &[&str]) -> String {
    edit(group, |fields| {
        let is_meant = fields.first().is_some_and(|group| groups.contains(&group.as_str()));
        if let Some(members) = fields.get_mut(3).filter(|_| is_meant)
            && !members.split(',').any(|member| member == name)
        {
            *members = if members.is_empty() { name.to_owned() } else { format!("{members},{name}") };
        }
    })
}

/// Gives a user a password's hash in /etc/shadow. What is there of ageing stays; a password that has to be changed at once
/// would stop a login without a keyboard.
pub(super) fn set_hash(shadow: &str, name: &str, hash: &str) -> String {
    if !has_key(shadow, name) {
        return add_line(shadow, &format!("{name}:{hash}::0:99999:7:::"));
    }
    edit(shadow, |fields| {
        if let [own, old, changed, ..] = fields.as_mut_slice()
            && own == name
        {
            hash.clone_into(old);
            if changed == "0" {
                changed.clear();
            }
        }
    })
}

/// The password is in /etc/shadow (passwd(5): `x`).
pub(super) fn use_shadow(passwd: &str, name: &str) -> String {
    edit(passwd, |fields| {
        if let [own, password, ..] = fields.as_mut_slice()
            && own == name
        {
            "x".clone_into(password);
        }
    })
}

/// Lines of sudoers(5) that begin with the old name begin with the new one.
pub(super) fn rename_in_sudoers(text: &str, old: &str, new: &str) -> String {
    let line = |line: &str| match line.strip_prefix(old) {
        Some(rest) if rest.starts_with([' ', '\t']) => format!("{new}{rest}"),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The text with a line behind it.
pub(super) fn add_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\npi:x:1000:1001:,,,:/home/pi:/bin/bash\npia:*:1001:1001::/home/pia:/bin/sh\nnobody:x:65534:65534::/none:/bin/false";
    const GROUP: &str = "sudo:x:27:pi,pia\npi:x:1001:\nvideo:x:44:\n";

    #[test]
    fn the_first_user_is_the_lowest_of_the_people() {
        let pi = User { name: "pi".to_owned(), uid: 1000, gid: 1001, home: "home/pi".to_owned() };
        assert_eq!(first_user(PASSWD), Some(pi));
        assert_eq!(first_user("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/none:/bin/false\n"), None);
        assert_eq!(group_name(GROUP, 1001).as_deref(), Some("pi"));
        assert_eq!(free_number(PASSWD, GROUP), 1002);
    }

    #[test]
    fn a_name_is_changed_wherever_it_stands_for_the_user_and_nowhere_else() {
        assert_eq!(
            set_home(&rename_key(PASSWD, "pi", "lion"), "lion", "/home/lion"),
            PASSWD.replace("pi:x:1000:1001:,,,:/home/pi:", "lion:x:1000:1001:,,,:/home/lion:")
        );
        assert_eq!(rename_member(GROUP, "pi", "lion", 1), GROUP.replace("27:pi,", "27:lion,"));
        assert_eq!(rename_member("sudo:*:pi:pia,pi\npi:!::\n", "pi", "lion", 2), "sudo:*:lion:pia,lion\npi:!::\n");
        assert_eq!(
            rename_in_sudoers("pi ALL=(ALL) NOPASSWD: ALL\npia ALL\n# pi\n", "pi", "lion"),
            "lion ALL=(ALL) NOPASSWD: ALL\npia ALL\n# pi\n"
        );
        assert_eq!(
            add_to_groups(GROUP, "lion", &["sudo", "video", "spi"]),
            "sudo:x:27:pi,pia,lion\npi:x:1001:\nvideo:x:44:lion\n"
        );
        assert_eq!(use_shadow(PASSWD, "pia"), PASSWD.replace("pia:*", "pia:x"));
    }

    #[test]
    fn a_hash_takes_the_place_of_a_lock() {
        let shadow = "root:*:19000:0:99999:7:::\npi:!:0:0:99999:7:::\n";
        assert_eq!(set_hash(shadow, "pi", "$6$x"), "root:*:19000:0:99999:7:::\npi:$6$x::0:99999:7:::\n");
        assert_eq!(set_hash("a:b:c", "pi", "$6$x"), "a:b:c\npi:$6$x::0:99999:7:::\n");
    }
}
