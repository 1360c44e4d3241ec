//! The user of a command of an image: the ids, and what programs find out about them. The image is untrusted; its files are read as text of
//! bounded length and never executed or followed.

use crate::error::{Error, Result};
use invarlock_images::{ImageFile, VerifiedRootfs};
use invarlock_runtime::{IdsInside, RuntimeFiles};

/// Where programs are searched if the image names no `PATH`: the directories of Docker and Podman.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kind of a terminal if the image names none, as in Docker and Podman.
const TERM: &str = "xterm";

/// The user of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// The ids inside.
    pub ids: IdsInside,
    /// The name, if there is one.
    name: Option<String>,
    home: String,
    /// `/etc/passwd` with the user, if that of the image does not have it.
    pub passwd: Option<String>,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

/// The ids, if the image need not be read for them.
pub fn ids_without_lookup(user: Option<&str>) -> Option<IdsInside> {
    let user = user.unwrap_or_default();
    if user.is_empty() {
        return Some(IdsInside::ROOT);
    }
    let (uid, gid) = user.split_once(':')?;
    Some(IdsInside { uid: number(uid)?, gid: number(gid)? })
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| text.bytes().all(|byte| byte.is_ascii_digit()) && *id <= IdsInside::MAX)
}

/// The id of a group, by name or by number.
fn group_id(group: &str, groups: &ImageFile) -> Option<u32> {
    let named = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.first().filter(|name| **name == group)?;
        number(fields.get(2)?)
    };
    groups.text().unwrap_or_default().lines().filter_map(named).next().or_else(|| number(group))
}

impl User {
    /// The user that the configuration of an image names: `USER[:GROUP]`, each a name or a number; none is root.
    pub fn of_image(rootfs: &VerifiedRootfs, user: Option<&str>) -> Result<Self> {
        let passwd = rootfs.read("etc/passwd")?;
        let group = || rootfs.read("etc/group");
        Self::find(&passwd, user.unwrap_or_default(), group)
    }

    fn find(passwd: &ImageFile, wanted: &str, groups: impl FnOnce() -> Result<ImageFile>) -> Result<Self> {
        let (user, group) =
            wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
        let user = if user.is_empty() { "0" } else { user };
        let text = match passwd {
            ImageFile::Absent => RuntimeFiles::PASSWD,
            other => other.text().unwrap_or_default(),
        };
        let accounts = || text.lines().filter_map(Account::parse);
        let by_uid = |uid| accounts().find(|account| account.uid == uid);
        let stated = ids_without_lookup(Some(wanted));
        let account = match stated {
            Some(ids) => by_uid(ids.uid),
            None => accounts().find(|account| account.name == user).or_else(|| number(user).and_then(by_uid)),
        };
        let unknown = |what: &str, file: &str| {
            Error::input(format!("user {wanted:?} of the image: {what} is not in its {file}"))
                .with_hint("name the user by numbers, `--user UID:GID`")
        };
        let too_long = |file: &str| {
            Error::safety(format!(
                "user {wanted:?} of the image: its {file} is longer than the 1 MiB allowed"
            ))
            .with_hint("name the user by numbers, `--user UID:GID`")
        };
        let ids = match stated {
            Some(ids) => ids,
            None if *passwd == ImageFile::TooLong => return Err(too_long("/etc/passwd")),
            None => {
                let uid = match (&account, number(user)) {
                    (Some(account), _) if account.uid <= IdsInside::MAX => account.uid,
                    (None, Some(uid)) => uid,
                    _ => return Err(unknown(user, "/etc/passwd")),
                };
                let gid = match (group.filter(|group| !group.is_empty()), &account) {
                    (Some(group), _) => {
                        let groups = groups()?;
                        group_id(group, &groups).ok_or_else(|| match groups {
                            ImageFile::TooLong => too_long("/etc/group"),
                            _ => unknown(group, "/etc/group"),
                        })?
                    }
                    (None, Some(account)) if account.gid > IdsInside::MAX => {
                        return Err(unknown(user, "/etc/passwd"));
                    }
                    (None, account) => account.as_ref().map_or(0, |account| account.gid),
                };
                IdsInside { uid, gid }
            }
        };
        let home = account.as_ref().map(|account| account.home).filter(|home| home.starts_with('/'));
        Ok(User {
            ids,
            name: account.as_ref().map(|account| account.name.to_owned()),
            home: home.unwrap_or(if ids.uid == 0 { "/root" } else { "/" }).to_owned(),
            passwd: (account.is_none() && matches!(passwd, ImageFile::Absent | ImageFile::Text(_)))
                .then(|| with_account(text, ids)),
        })
    }

    /// The environment of the image, and what it lacks.
    pub fn complete(&self, mut env: Vec<(String, String)>, terminal: bool) -> Vec<(String, String)> {
        let more = [
            ("PATH", Some(DEFAULT_PATH)),
            ("HOME", Some(&*self.home)),
            ("USER", self.name.as_deref()),
            ("TERM", terminal.then_some(TERM)),
        ];
        for (name, value) in more {
            if let Some(value) = value
                && !env.iter().any(|(found, _)| found == name)
            {
                env.push((name.to_owned(), value.to_owned()));
            }
        }
        env
    }
}

/// The text of `/etc/passwd` with an account for these ids, as Podman writes it. Its name is the number.
fn with_account(text: &str, IdsInside { uid, gid }: IdsInside) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{uid}:*:{uid}:{gid}:container user:/:/bin/sh\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:100::/home/app:/bin/sh\n1001:x:7:8::relative:";

    fn find(passwd: Option<&str>, wanted: &str) -> Result<User> {
        let file = |text: Option<&str>| match text {
            Some(text) => ImageFile::Text(text.to_owned()),
            None => ImageFile::Absent,
        };
        User::find(&file(passwd), wanted, || Ok(file(Some("root:x:0:\nstaff:x:50:app\n"))))
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        for (wanted, uid, gid, name, home) in [
            ("", 0, 0, Some("root"), "/root"),
            ("root", 0, 0, Some("root"), "/root"),
            ("app", 1000, 100, Some("app"), "/home/app"),
            ("1000", 1000, 100, Some("app"), "/home/app"),
            ("app:staff", 1000, 50, Some("app"), "/home/app"),
            ("app:0", 1000, 0, Some("app"), "/home/app"),
            // A name that is a number precedes the number. A home that is no absolute path is none.
            ("1001", 7, 8, Some("1001"), "/"),
            ("2000", 2000, 0, None, "/"),
            ("2000:3000", 2000, 3000, None, "/"),
            // Numbers are taken as they are: the container was made with them.
            ("1001:8", 1001, 8, None, "/"),
        ] {
            let user = find(Some(PASSWD), wanted).expect(wanted);
            assert_eq!(user.ids, IdsInside { uid, gid }, "{wanted}");
            assert_eq!((user.name.as_deref(), &*user.home), (name, home), "{wanted}");
            assert_eq!(user.passwd.is_some(), name.is_none(), "{wanted}");
        }
        let added = find(Some(PASSWD), "2000:3000").expect("user").passwd.expect("an account");
        assert_eq!(added, format!("{PASSWD}\n2000:*:2000:3000:container user:/:/bin/sh\n"));
        let wheel = find(Some("root:x:0:5:root:/root:/bin/sh\n"), "").expect("root");
        assert_eq!(wheel.ids, IdsInside::ROOT);
        for root in ["", "0", "root"] {
            let user = find(None, root).expect("root");
            assert_eq!(
                (user.name.as_deref(), user.passwd),
                (Some("root"), None),
                "the runtime has an account"
            );
        }
        assert!(find(None, "65532:65532").expect("user").passwd.is_some());
        for unknown in ["nobody", "app:none", "-1", "+5", "4294967295", "4294967294", "app:4294967295", "a b"]
        {
            assert!(find(Some(PASSWD), unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn accounts_that_are_too_long_to_read_need_numbers() {
        let find = |passwd, groups, wanted: &str| User::find(&passwd, wanted, || Ok(groups));
        let text = || ImageFile::Text(PASSWD.to_owned());
        for numbers in ["", "7:8", "1000:100"] {
            let user = find(ImageFile::TooLong, text(), numbers).expect(numbers);
            assert_eq!((user.name, user.passwd), (None, None), "{numbers}");
        }
        for wanted in ["app", "1000", "app:8"] {
            let error = find(ImageFile::TooLong, text(), wanted).expect_err(wanted);
            assert!(error.to_string().contains("/etc/passwd is longer"), "{error}");
        }
        assert_eq!(find(text(), ImageFile::TooLong, "app:8").expect("numbers").ids.gid, 8);
        let error = find(text(), ImageFile::TooLong, "app:staff").expect_err("a name");
        assert!(error.to_string().contains("/etc/group is longer"), "{error}");
    }

    #[test]
    fn environment_of_the_image_precedes() {
        let user = find(Some(PASSWD), "app").expect("user");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = user.complete(vec![pair("HOME", "/data"), pair("PATH", "/bin")], false);
        assert_eq!(env, [pair("HOME", "/data"), pair("PATH", "/bin"), pair("USER", "app")]);
        let env = find(None, "5").expect("user").complete(Vec::new(), true);
        assert_eq!(env, [pair("PATH", DEFAULT_PATH), pair("HOME", "/"), pair("TERM", "xterm")]);
    }

    #[test]
    fn only_complete_numbers_need_no_lookup() {
        assert_eq!(ids_without_lookup(None), Some(IdsInside::ROOT));
        assert_eq!(ids_without_lookup(Some("")), Some(IdsInside::ROOT));
        assert_eq!(ids_without_lookup(Some("7:8")), Some(IdsInside { uid: 7, gid: 8 }));
        for lookup in ["7", "app", "7:", "7:staff", ":8", "4294967295:0"] {
            assert_eq!(ids_without_lookup(Some(lookup)), None, "{lookup}");
        }
    }
}
