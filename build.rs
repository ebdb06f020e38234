//! Compiles the protocols of the control plane, without `protoc`. The pure core needs none of them.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "kernel")]
    protocols()?;
    Ok(())
}

/// Files in `proto/`, and whether we serve what they describe or only ask for it.
#[cfg(feature = "kernel")]
const PROTOCOLS: &[(&str, bool)] = &[("dvr.proto", true), ("etcd.proto", false)];

#[cfg(feature = "kernel")]
fn protocols() -> Result<(), Box<dyn Error>> {
    for (file, served) in PROTOCOLS {
        let described = protox::compile([file], ["proto"])?;
        tonic_prost_build::configure().build_server(*served).compile_fds(described)?;
    }
    Ok(())
}
