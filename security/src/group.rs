//! User private groups, as Debian and Ubuntu create one for each user.

use std::fs::File;
use std::io::Read as _;

/// Longest account file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// Checks in the local account files that `owner` is the only member of the group `gid`. If this cannot be established, it is an error.
pub(crate) fn is_private(owner: u32, gid: u32) -> Result<(), String> {
    private(owner, gid, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
        .map_err(|error| format!("{path} cannot be read ({error})"))?;
    match text.len() as u64 > LONGEST {
        true => Err(format!("{path} is too long")),
        false => Ok(text),
    }
}

/// The fields of each entry of an account file. A malformed line and a reference to another source (`+`, `-`) are errors.
fn lines<'a, const FIELDS: usize>(
    text: &'a str,
    what: &'static str,
) -> impl Iterator<Item = Result<[&'a str; FIELDS], String>> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let local = !line.starts_with(['+', '-']);
        fields
            .try_into()
            .ok()
            .filter(|_| local)
            .ok_or_else(|| format!("{what} has a malformed line or a reference to another source"))
    })
}

/// `gid` is the primary group of `owner`'s account, of no account with another id, and has no other member.
fn private(owner: u32, gid: u32, accounts: &str, groups: &str) -> Result<(), String> {
    let number =
        |text: &str| text.parse::<u32>().map_err(|_| "an account file has an invalid number".to_owned());
    let mut names = Vec::new();
    for account in lines::<7>(accounts, "/etc/passwd") {
        let [name, _, uid, group, ..] = account?;
        let (uid, group) = (number(uid)?, number(group)?);
        match (uid == owner, group == gid) {
            (true, true) => names.push(name),
            (true, false) => {}
            (false, true) => return Err(format!("{name} is in group {gid} too")),
            (false, false) => {}
        }
    }
    if names.is_empty() {
        return Err(format!("group {gid} is not the private group of uid {owner}"));
    }
    for group in lines::<4>(groups, "/etc/group") {
        let [_, _, id, members] = group?;
        let mut members = members.split(',').filter(|name| !name.is_empty());
        if number(id)? == gid
            && let Some(other) = members.find(|name| !names.contains(name))
        {
            return Err(format!("{other} is in group {gid} too"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::private;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n\
        bob:x:1001:1001::/home/bob:/bin/sh\ncat:x:1002:100::/home/cat:/bin/sh\ndan:x:1003:100::/home/dan:/bin/sh\n";
    const GROUPS: &str =
        "root:x:0:\nusers:x:100:\nann:x:1000:ann\nbob:x:1001:ann\n# a comment\n\nstaff:x:50:bob\n";

    #[track_caller]
    fn assert_shared(owner: u32, gid: u32, accounts: &str, groups: &str, word: &str) {
        let why = private(owner, gid, accounts, groups).expect_err("not private");
        assert!(why.contains(word), "{why}");
    }

    #[test]
    fn private_and_shared_groups() {
        private(0, 0, ACCOUNTS, GROUPS).expect("root's");
        private(1000, 1000, ACCOUNTS, GROUPS).expect("ann's");
        assert_shared(1001, 1001, ACCOUNTS, GROUPS, "ann is in group 1001 too");
        assert_shared(1002, 100, ACCOUNTS, GROUPS, "dan is in group 100 too");
        assert_shared(1001, 50, ACCOUNTS, GROUPS, "not the private group");
        assert_shared(0, 1000, ACCOUNTS, GROUPS, "ann is in group 1000 too");
        assert_shared(4242, 4242, ACCOUNTS, GROUPS, "not the private group");
        assert_shared(
            0,
            0,
            &format!("{ACCOUNTS}sync:x:4:0::/:/bin/sync\n"),
            GROUPS,
            "sync is in group 0 too",
        );
        assert_shared(0, 0, ACCOUNTS, &format!("{GROUPS}wheel:x:0:bob\n"), "bob is in group 0 too");
        private(1000, 1000, &format!("{ACCOUNTS}ann2:x:1000:1000::/:/bin/sh\n"), GROUPS)
            .expect("one id, two names");
    }

    #[test]
    fn unreadable_entries_are_errors() {
        for line in ["+::::::", "+@net::::::", "-bob::::::", "half:x:7", "x:x:many:1:::"] {
            assert!(private(1000, 1000, &format!("{ACCOUNTS}{line}\n"), GROUPS).is_err(), "{line}");
        }
        for line in ["+:::", "half:x", "x:x:many:"] {
            assert!(private(1000, 1000, ACCOUNTS, &format!("{GROUPS}{line}\n")).is_err(), "{line}");
        }
        assert!(private(1000, 1000, "", GROUPS).is_err());
        private(1000, 1000, ACCOUNTS, "")
            .expect("without a group entry, membership follows from the accounts");
    }
}
