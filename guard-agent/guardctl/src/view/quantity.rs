//! Counts for people.

/// A count in full; one above a million as a power of two where it is one, but for a thousandth, else
/// with two digits. Scripts have JSON.
pub(crate) fn quantity(count: u64) -> String {
    if count <= 1_000_000 {
        return count.to_string();
    }
    let wide = u128::from(count);
    let power = |exponent: &u32| {
        let power = 1_u128 << exponent;
        wide.abs_diff(power) * 1000 <= power
    };
    match (0..=u64::BITS).find(power) {
        Some(exponent) => format!("2^{exponent}"),
        None => {
            #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
            let count = count as f64;
            format!("{count:.1e}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_read_is_rounded() {
        let said = [0, 253, 1_000_000, 1_000_001, 1 << 20, u64::MAX - 2, 1 << 63, 15_000_000]
            .map(quantity);
        assert_eq!(said, ["0", "253", "1000000", "1.0e6", "2^20", "2^64", "2^63", "1.5e7"]);
        // Within a thousandth, and just beyond.
        assert_eq!(quantity((1 << 24) - 16_000), "2^24");
        assert_eq!(quantity((1 << 24) - 17_000), "1.7e7");
    }
}
