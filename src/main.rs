//! The `piboot` program: `piboot serve` is the agent, every other subcommand its client.

fn main() {}
