//! What the attacker inside the container and the judge outside must agree on.

use std::time::Duration;

/// `argv[0]` of the attacker: the path of its program in the image of the probe.
pub(crate) const ATTACKER: &str = "/invarlock-attacker";

/// First argument of the attacker: the program only exits. Scripts and inputs that an attack tries to execute use it.
pub(crate) const EXIT: &str = "exit";

/// First argument of the attacker: every attack that does not need a run of its own.
pub(crate) const ALL: &str = "all";

/// First argument of the attacker: the attacks in a run with a directory of the host that it can write.
pub(crate) const BINDS: &str = "binds";

/// Where that directory is in the container.
pub(crate) const BIND: &str = "/bind";

/// A file next to that directory on the host.
pub(crate) const OUTSIDE: &str = "input";

/// First argument of the attacker: attacks with a run of their own, because they end that run or need another one.
pub(crate) const SEPARATE_RUNS: [&str; 6] = ["memory", "processors", "time", "link", "fifo", BINDS];

/// The separate runs that leave a forbidden file in `/out`.
pub(crate) const BAD_OUTPUT_RUNS: [&str; 2] = ["link", "fifo"];

/// Memory limit of the attacker, in bytes.
pub(crate) const MEMORY_LIMIT: u64 = 96 << 20;

/// Wall-time limit of the run `time`.
pub(crate) const WALL_LIMIT: Duration = Duration::from_millis(300);
