//! Durations (`"30s"`, `"1h30m"`, `"7d"`) and sizes (`"1MiB"`) as people write them.
//!
//! A number without a unit is refused: nobody should have to guess what it means.

use std::time::Duration;

/// Units of time, largest first, in milliseconds.
const TIME: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first. `kB`, `MB` and `GB` are decimal, as on disks.
const SIZE: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// One or more numbers with units, whole or decimal: `500ms`, `1.5h`, `2m30s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    total(text, &TIME).map(Duration::from_millis)
}

pub(super) fn size(text: &str) -> Option<u64> {
    total(text, &SIZE)
}

/// As `duration` reads it, in the fewest units.
pub(crate) fn show_duration(d: Duration) -> String {
    show(u64::try_from(d.as_millis()).unwrap_or(u64::MAX), &TIME, "0s")
}

/// As `size` reads it, in the unit that gives the smallest whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let whole = SIZE.iter().filter(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole
        .map(|(name, unit)| (bytes / unit, name))
        .min()
        .map_or("0B".to_owned(), |(n, name)| format!("{n}{name}"))
}

fn show(mut rest: u64, units: &[(&str, u64)], zero: &str) -> String {
    let mut out = String::new();
    for (name, unit) in units {
        // Weeks read worse than days.
        if *name != "w" && rest >= *unit {
            out.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if out.is_empty() { zero.to_owned() } else { out }
}

fn total(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    let mut sum = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')?;
        let number: f64 = rest[..digits].replace('_', "").parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(&rest[..letters]))?.1;
        let part = number * unit as f64;
        // Beyond 2^53 a float no longer counts single units; nobody means such a number.
        if !(0.0..9.0e15).contains(&part) {
            return None;
        }
        sum = sum.checked_add(part.round() as u64)?;
        rest = rest[letters..].trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_as_people_write_them() {
        let cases =
            [("30s", 30_000), ("7d", 604_800_000), ("1h30m", 5_400_000), ("500ms", 500), ("1.5m", 90_000)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for shown in ["7d", "1h30m", "500ms", "0s", "1m30s"] {
            assert_eq!(show_duration(duration(shown).unwrap()), shown);
        }
    }

    #[test]
    fn what_is_no_duration_is_not_guessed() {
        for text in ["", "30", "s", "-5s", "5 parsecs", "1e9s", "5s5", "999999999999d", "1.2.3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_as_people_write_them() {
        let cases =
            [("1MiB", 1 << 20), ("4 KiB", 4096), ("10GB", 10_000_000_000), ("512B", 512), ("1mib", 1 << 20)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        assert_eq!((size("12"), size("1 MX"), size("lots")), (None, None, None));
        for (bytes, shown) in [(1 << 20, "1MiB"), (10_000_000_000, "10GB"), (1500, "1500B"), (0, "0B")] {
            assert_eq!(show_size(bytes), shown);
        }
    }
}
