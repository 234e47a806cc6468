//! OpenMetrics 1.0 [1], for those who ask for it: the text format with units, an end, and counters
//! whose families are named without `_total`.
//!
//! [1] <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::fmt::Write as _;

/// The words at the end of a name that are units.
const UNITS: [&str; 3] = ["seconds", "addresses", "events"];

/// What the text format 0.0.4 says, in OpenMetrics.
pub fn of_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    let mut help = "";
    for line in text.lines() {
        // HELP stands before TYPE, which tells what the family is called.
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let family = name.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(name);
            // Writing to a string does not fail.
            let _ = writeln!(out, "# TYPE {family} {kind}");
            if let Some(unit) = UNITS.iter().find(|unit| family.ends_with(&format!("_{unit}"))) {
                let _ = writeln!(out, "# UNIT {family} {unit}");
            }
            let _ = writeln!(out, "# HELP {family} {}", help.replace('"', "\\\""));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_unit_and_a_counter_its_bare_name() {
        let text = "# HELP a_total What \"a\" is.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
                    # HELP t_seconds Time.\n# TYPE t_seconds histogram\nt_seconds_sum 0.5\n";
        assert_eq!(
            of_text(text),
            "# TYPE a counter\n# HELP a What \\\"a\\\" is.\na_total{b=\"c\"} 1\n\
             # TYPE t_seconds histogram\n# UNIT t_seconds seconds\n# HELP t_seconds Time.\n\
             t_seconds_sum 0.5\n# EOF\n"
        );
    }
}
