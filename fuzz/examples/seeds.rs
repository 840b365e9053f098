//! Writes the seeds of every target into folders of their names: `cargo run -p trustfleet-fuzz --example seeds -- FOLDER`.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).ok_or_else(|| io::Error::other("usage: seeds FOLDER"))?;
    for (target, _) in trustfleet_fuzz::TARGETS {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        let seeds = trustfleet_fuzz::seeds::seeds(target);
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:04}")), seed)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}
