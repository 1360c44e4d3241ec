//! Usage errors: as text like other programs, or as JSON where the arguments have `--json`.

use crate::error::{Error, ExitCodes, Format, Kind, report};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::process::ExitCode;

/// Prints a usage error, help or version; gives the exit code.
pub fn report_usage(usage: &clap::Error, args: &[OsString]) -> ExitCode {
    if !usage.use_stderr() {
        return match usage.print() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                let error = Error::from_source(Kind::System, error).context("writing standard output");
                ExitCode::from(report(&error, Format::Text, ExitCodes::OfKind))
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let (format, codes) = of_verb(args);
    let error = error(usage);
    if is_engine(args) {
        let error = match usage.kind() {
            ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
                error.without_hint().with_hint(supported(args))
            }
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Error::input("no command").with_hint(supported(args))
            }
            _ => error,
        };
        return ExitCode::from(report(&error, Format::Text, codes));
    }
    if let Some(instead) = instead_of_podmans(usage, args) {
        return ExitCode::from(report(&error.without_hint().with_hint(instead), format, codes));
    }
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
    let workload = is(["runtime", "run"]) || is(["runtime", "learn"]) || is_engine(args);
    (format, if workload { ExitCodes::OwnFailure } else { ExitCodes::OfKind })
}

/// Whether a command of Podman or Docker is to be answered.
fn is_engine(args: &[OsString]) -> bool {
    matches!(args, [first, second, third, ..] if first == "runtime" && second == "engine" && (third == "podman" || third == "docker"))
}

/// What to write instead of an option of `podman run`.
fn instead_of_podmans(usage: &clap::Error, args: &[OsString]) -> Option<&'static str> {
    let is_run = matches!(args, [first, second, ..] if first == "runtime" && second == "run");
    if !is_run || usage.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(option)) = usage.get(ContextKind::InvalidArg) else { return None };
    Some(match option.as_str() {
        "--gpus" => "name devices: --device nvidia.com/gpu=all",
        "--pids-limit" => "use --pids",
        "-d" | "--detach" => {
            "leave it out: a run ends with this command; start it in the background with your shell"
        }
        "-p" | "--publish" | "-P" | "--publish-all" | "--expose" | "--dns" | "--add-host" | "--ip" => {
            "leave it out: a container has no network"
        }
        "--privileged"
        | "--cap-add"
        | "--device-cgroup-rule"
        | "--userns"
        | "--pid"
        | "--ipc"
        | "--uts"
        | "--cgroupns" => "leave it out: the boundary cannot be widened",
        "--cap-drop" | "--security-opt" => {
            "leave it out: a run has no capability, no new privileges and a system-call filter; --seccomp FILE replaces the filter"
        }
        "--hostname" | "--pull" => "leave it out: it cannot be chosen here",
        _ => return None,
    })
}

/// The options of the command, or its commands: who calls an engine does not know that there are fewer than usual.
fn supported(args: &[OsString]) -> String {
    let definition = crate::args::definition();
    let mut command = &definition;
    for word in args {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let commands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    if !commands.is_empty() {
        return format!("supported commands: {}", commands.join(", "));
    }
    let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let options: Vec<String> =
        options.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
    format!("supported options: {}", options.join(", "))
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
    fn failures_of_an_engine_have_their_own_code_and_list_what_there_is() {
        assert_eq!(format_and_codes("runtime engine podman run").1, ExitCodes::OwnFailure);
        assert_eq!(format_and_codes("runtime engine install").1, ExitCodes::OfKind);
        let supported =
            |line: &str| super::supported(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let run = supported("runtime engine docker run --bogus run");
        assert!(run.contains("--cidfile") && !run.contains("--privileged"), "{run}");
        assert!(supported("runtime engine podman ps").contains("image, pull, run, stop"));
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
