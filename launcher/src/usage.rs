//! Usage errors: as text like other programs, or as JSON where the arguments have `--json`.

use crate::error::{Error, ExitCodes, Format, report};
use std::ffi::OsString;
use std::process::ExitCode;

/// Prints a usage error, help or version; gives the exit code.
pub fn report_usage(usage: &clap::Error, args: &[OsString]) -> ExitCode {
    if !usage.use_stderr() {
        // A closed standard stream changes nothing: the exit code reports the result.
        drop(usage.print());
        return ExitCode::SUCCESS;
    }
    let (format, codes) = of_verb(args);
    let error = error(usage);
    ExitCode::from(match format {
        Format::Text => {
            drop(usage.print());
            codes.of(&error)
        }
        Format::Json | Format::JsonOnStderr => report(&error, format, codes),
    })
}

/// How the failures of the verb are reported. The arguments could not be parsed, so the verb is recognised by its first two words.
fn of_verb(args: &[OsString]) -> (Format, ExitCodes) {
    // Arguments after `--` are those of a workload.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let verb: Vec<_> = args.iter().take(2).collect();
    let is = |words: [&str; 2]| verb == words;
    let format = match json {
        false => Format::Text,
        // Standard output belongs to the workload.
        true if is(["runtime", "run"]) => Format::JsonOnStderr,
        true => Format::Json,
    };
    // Exit code 2 may be the workload's.
    let workload = is(["runtime", "run"]) || is(["runtime", "learn"]);
    (format, if workload { ExitCodes::OwnFailure } else { ExitCodes::OfKind })
}

/// The first paragraph of the text is the message. The rest repeats the help.
fn error(usage: &clap::Error) -> Error {
    let text = usage.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let message: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    Error::input(message.join(" ")).with_hint("the same command with --help lists the arguments")
}

#[cfg(test)]
mod tests {
    use super::{error, of_verb};
    use crate::args::Cli;
    use crate::error::{ExitCodes, Format, Kind};
    use clap::Parser as _;
    use std::ffi::OsString;

    fn format_and_codes(line: &str) -> (Format, ExitCodes) {
        of_verb(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn format_follows_verb_and_json_flag() {
        assert_eq!(format_and_codes("verify --bogus"), (Format::Text, ExitCodes::OfKind));
        assert_eq!(format_and_codes("verify --json --bogus"), (Format::Json, ExitCodes::OfKind));
        assert_eq!(format_and_codes("runtime learn --json"), (Format::Json, ExitCodes::OwnFailure));
        assert_eq!(format_and_codes("runtime run --json"), (Format::JsonOnStderr, ExitCodes::OwnFailure));
        assert_eq!(
            format_and_codes("runtime run --bogus i -- w --json"),
            (Format::Text, ExitCodes::OwnFailure)
        );
    }

    #[test]
    fn message_is_the_first_paragraph() {
        let of = |line: &str| error(&Cli::try_parse_from(line.split(' ')).expect_err("a usage error"));
        let unknown = of("invarlock verify --bogus x");
        assert_eq!(
            (unknown.kind(), unknown.to_string()),
            (Kind::Input, "unexpected argument '--bogus' found".to_owned())
        );
        let missing = of("invarlock evaluate --json").to_string();
        assert!(missing.contains("--baseline <DIR> --subject <DIR>"), "{missing}");
    }
}
