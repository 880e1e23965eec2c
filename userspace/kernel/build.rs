//! Builds the kernel object and leaves it for `include_bytes!`.

#[path = "../../ebpf/embed.rs"]
mod embed;

fn main() -> std::process::ExitCode {
    embed::embed("../../ebpf", "pierhead-ebpf")
}
