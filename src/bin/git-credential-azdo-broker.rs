//! git's credential helper: `git credential-azdo-broker get|store|erase|capability`.
//!
//! It hands argument, input and output to the library and always ends with success (check A53).

use std::io::{self, Write as _};

use azdo_broker::git_credential::{Remote, run};

fn main() {
    let operation = std::env::args().nth(1).unwrap_or_default();
    let (input, out, err) = (&mut io::stdin().lock(), &mut io::stdout().lock(), &mut io::stderr().lock());
    if let Err(error) = run(&operation, input, out, err, &Remote) {
        // If standard error is gone too, nobody is left to tell.
        let _ = writeln!(err, "azdo-broker: cannot talk with git: {error}");
    }
}
