use super::*;
use std::io;

fn failed_call(errno: i32) -> Error {
    Err::<(), _>(io::Error::from_raw_os_error(errno)).context("opening a file").expect_err("a failure")
}

#[test]
fn missing_system_call_is_unsupported_with_hint() {
    let error = failed_call(38);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().starts_with("opening a file: "), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("Linux 5.15")), "{error:?}");
}

#[test]
fn errno_gives_hint() {
    for (errno, hint) in [
        (28, "free some space"),
        (122, "free some space"),
        (27, "ulimit -f"),
        (24, "ulimit -n"),
        (12, "ulimit -v"),
    ] {
        let error = failed_call(errno);
        assert_eq!(error.kind(), Kind::System);
        assert!(error.hint().is_some_and(|h| h.contains(hint)), "{errno}: {error:?}");
        assert_eq!(error.errno(), Some(errno));
    }
    assert_eq!(failed_call(1).hint(), None);
}

#[test]
fn first_hint_and_first_control_stay() {
    let error = Error::unsupported("no").with_hint("a").with_hint("b").in_control("x").in_control("y");
    assert_eq!((error.hint(), error.control()), (Some("a"), Some("x")));
    assert_eq!(error.to_string(), "control \"x\": no");
}

#[test]
fn cause_is_found_through_io_error_payload() {
    #[derive(Debug)]
    struct Cause;
    impl fmt::Display for Cause {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cause")
        }
    }
    impl StdError for Cause {}
    let error = Error::from(io::Error::other(Cause)).context("reading");
    assert!(error.find::<Cause>().is_some());
    assert_eq!(error.to_string(), "reading: cause");
}

#[test]
fn serialized_error_has_everything_but_its_source() {
    let json = serde_json::to_string(&failed_call(28).context("saving")).expect("JSON");
    let back: Error = serde_json::from_str(&json).expect("an error");
    assert_eq!(back.message(), failed_call(28).context("saving").message());
    assert_eq!(back.hint(), failed_call(28).hint());
    assert_eq!(back.errno(), None);
    let json = serde_json::to_string(&Error::input("no").with_program_errno(2)).expect("JSON");
    let back: Error = serde_json::from_str(&json).expect("an error");
    assert_eq!((back.program_errno(), back.errno()), (Some(2), None));
}

#[test]
fn interrupted_is_not_read_from_outside() {
    assert!(serde_json::from_str::<Kind>("{\"interrupted\":9}").is_err());
    assert!(serde_json::from_str::<Kind>("\"interrupted\"").is_err());
    assert_eq!(Kind::Interrupted(15).exit_code(), 143);
}
