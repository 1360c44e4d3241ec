//! What the attacker inside the container and the judge outside must agree on.

use std::time::Duration;

/// `argv[0]` of the attacker: the path of its program in the image of the probe.
pub(crate) const ATTACKER: &str = "/invarlock-attacker";

/// First argument of the attacker: the program only exits. Scripts and inputs that an attack tries to execute use it.
pub(crate) const EXIT: &str = "exit";

/// First argument of the attacker: every attack that does not need a run of its own.
pub(crate) const ALL: &str = "all";

/// First argument of the attacker: an attack with a run of its own, because the attack ends that run.
pub(crate) const SEPARATE_RUNS: [&str; 5] = ["memory", "processors", "time", "link", "fifo"];

/// The separate runs that leave a forbidden file in `/out`.
pub(crate) const BAD_OUTPUT_RUNS: [&str; 2] = ["link", "fifo"];

/// Memory limit of the attacker, in bytes.
pub(crate) const MEMORY_LIMIT: u64 = 96 << 20;

/// Wall-time limit of the run `time`.
pub(crate) const WALL_LIMIT: Duration = Duration::from_millis(300);
