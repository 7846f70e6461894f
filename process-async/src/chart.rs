//! Times as a table and a bar chart.

use std::time::Duration;

/// How long the longest bar is, in characters.
const WIDTH: f64 = 40.0;

/// Prints a line for each of the times.
pub fn print(rows: &[(&str, Duration)]) {
    let longest = rows.iter().map(|row| row.1).max().unwrap_or_default();
    for (name, time) in rows {
        let share = time.as_secs_f64() / longest.as_secs_f64();
        let bar = "█".repeat((share * WIDTH).round() as usize);
        println!("{name:<22}  {:>5.2} s  {bar}", time.as_secs_f64());
    }
}
