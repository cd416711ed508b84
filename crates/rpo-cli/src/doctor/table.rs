//! A comparison as a table for people.

use rpo::device::{Check, Compared, Kind, Subject};

/// Gradients that are shown where not all are: those that differ most.
const GRADIENTS: usize = 5;

/// What was tried, the table of the first comparison, and what both took.
pub fn lines(subject: &Subject, check: &Check, again: &Check, all: bool) -> Vec<String> {
    let with = if check.device == "cpu" { "Burn" } else { "CPU" };
    let adapter = check.adapter.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{}{adapter}: a small {}, products in {}",
        check.device,
        subject.description(),
        check.arithmetic.name()
    )];
    let shown = shown(&check.compared, all);
    let width = shown.iter().map(|quantity| quantity.name.len()).max().unwrap_or(0).max("quantity".len());
    let device = if check.device == "cpu" { "own kernels" } else { &check.device };
    lines.push(format!("{:<width$}  {with:>11}  {device:>11}  difference  tolerance", "quantity"));
    lines.extend(shown.iter().map(|quantity| row(quantity, width)));
    let left = check.compared.len() - shown.len();
    if left > 0 {
        lines.push(format!("and {left} gradients that differ less (--all shows them)"));
    }
    let worse = again.compared.iter().filter(|quantity| !quantity.is_within()).count();
    let beyond = check.compared.iter().filter(|quantity| !quantity.is_within()).count();
    let [[expected, first], [_, second]] = [check, again].map(|check| check.took.map(|took| took.as_secs_f64()));
    lines.push(format!(
        "beyond the tolerance: {beyond} of {}, and {worse} when computed again; {with} took {expected:.2} s, {device} {first:.2} s and \
         then {second:.2} s",
        check.compared.len()
    ));
    lines
}

/// All but the gradients that differ little.
fn shown(compared: &[Compared], all: bool) -> Vec<&Compared> {
    let mut differences: Vec<f64> = gradients(compared).map(|quantity| quantity.difference).collect();
    differences.sort_by(|a, b| b.total_cmp(a));
    let least = differences.get(GRADIENTS - 1).copied().unwrap_or(0.0);
    compared.iter().filter(|q| all || q.kind != Kind::Gradient || q.difference >= least || !q.is_within()).collect()
}

fn gradients(compared: &[Compared]) -> impl Iterator<Item = &Compared> {
    compared.iter().filter(|quantity| quantity.kind == Kind::Gradient)
}

fn row(quantity: &Compared, width: usize) -> String {
    let Compared { name, kind, expected, found, difference, tolerance } = quantity;
    let value = |x: &f64| if *kind == Kind::Tokens { String::new() } else { format!("{x:.4e}") };
    let allowed = if tolerance.is_finite() { format!("{tolerance:.0e}") } else { "any".into() };
    let verdict = if quantity.is_within() { "" } else { "  WRONG" };
    format!("{name:<width$}  {:>11}  {:>11}  {difference:>10.1e}  {allowed:>9}{verdict}", value(expected), value(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(name: &str, kind: Kind, difference: f64) -> Compared {
        Compared { name: name.into(), kind, expected: 1.5, found: -2.0, difference, tolerance: 1e-3 }
    }

    #[test]
    fn what_differs_most_and_all_that_is_wrong_is_shown() {
        let mut compared = vec![quantity("loss", Kind::Value, 0.0)];
        compared.extend((0..10).map(|i| quantity(&format!("gradient {i}"), Kind::Gradient, f64::from(i) * 1e-5)));
        let names = |all| shown(&compared, all).iter().map(|q| q.name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(false), "loss gradient 5 gradient 6 gradient 7 gradient 8 gradient 9");
        assert_eq!(shown(&compared, true).len(), 11);
        compared.iter_mut().for_each(|quantity| quantity.difference = f64::INFINITY);
        assert_eq!(shown(&compared, false).len(), 11);
        let said = row(&compared[0], 8);
        assert_eq!(said, "loss         1.5000e0    -2.0000e0         inf       1e-3  WRONG");
    }
}
