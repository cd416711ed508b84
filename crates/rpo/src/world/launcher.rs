//! What launchers tell the processes that they start: how many they are, and which of them each is.

/// A launcher: the variables in which it tells a process how many there are and which it is, and what people call it.
struct Launcher {
    size: &'static str,
    rank: &'static str,
    name: &'static str,
}

/// Of several, as where mpirun was started by srun, the innermost counts, which are the first in the list.
const LAUNCHERS: [Launcher; 4] = [
    Launcher { size: "OMPI_COMM_WORLD_SIZE", rank: "OMPI_COMM_WORLD_RANK", name: "mpirun" },
    Launcher { size: "PMI_SIZE", rank: "PMI_RANK", name: "mpiexec" },
    Launcher { size: "MV2_COMM_WORLD_SIZE", rank: "MV2_COMM_WORLD_RANK", name: "mpirun" },
    Launcher { size: "SLURM_STEP_NUM_TASKS", rank: "SLURM_PROCID", name: "srun" },
];

/// How the names of all variables begin by which they make a process one of several.
const THEIRS: [&str; 6] = ["OMPI_", "PMIX_", "PMI_", "MV2_", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"];

/// Who started this process with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// What the launcher is called.
    pub by: &'static str,
    /// How many processes there are; more than one.
    pub size: usize,
    /// Which this one is, where that is told.
    pub rank: Option<usize>,
}

/// Who started this process with others; `None` for one by itself. Whatever `variable` holds is what the process was told.
pub fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name| variable(name)?.parse().ok();
    let told = |of: Launcher| Some(Launched { by: of.name, size: number(of.size)?, rank: number(of.rank) });
    LAUNCHERS.into_iter().find_map(told).filter(|launched| launched.size > 1)
}

/// Whether the variable `name` is a launcher's, which programs that are no part of its work must not get.
pub(crate) fn is_theirs(name: &str) -> bool {
    THEIRS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_were_started_together_are_known_by_their_launcher() {
        let with = |name: &'static str, value: &'static str| {
            launched(move |asked| (asked == name).then(|| value.into())).map(|found| (found.by, found.size))
        };
        assert_eq!(with("OMPI_COMM_WORLD_SIZE", "4"), Some(("mpirun", 4)));
        assert_eq!(with("SLURM_STEP_NUM_TASKS", "2"), Some(("srun", 2)));
        assert_eq!(with("OMPI_COMM_WORLD_SIZE", "1"), None);
        assert_eq!(with("PATH", "4"), None);
        let one_in_four = |asked: &str| match asked {
            "OMPI_COMM_WORLD_SIZE" => Some("1".to_string()),
            "SLURM_STEP_NUM_TASKS" => Some("4".to_string()),
            _ => None,
        };
        assert_eq!(launched(one_in_four), None);
        let third = |asked: &str| Some(if asked.ends_with("RANK") { "2" } else { "3" }.to_string());
        assert_eq!(launched(third), Some(Launched { by: "mpirun", size: 3, rank: Some(2) }));
        for Launcher { size, rank, .. } in LAUNCHERS {
            assert!(is_theirs(size) && is_theirs(rank) && !is_theirs("SLURM_JOB_ID"), "{size}");
        }
    }
}
