//! Builds the program that makes frames for the layer 4 rig, and leaves it for `include_bytes!`.

#[path = "../ebpf/embed.rs"]
mod embed;

fn main() -> std::process::ExitCode {
    embed::embed("../ebpf", "pierhead-frames")
}
