//! Draws phantoms as PNG files: `draw FOLDER FIRST_SEED COUNT`.

use anatomix_phantom::{Scene, files::save_png};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, seed, count] = arguments.as_slice() else { return Err("usage: draw FOLDER FIRST_SEED COUNT".into()) };
    let (seed, count): (u64, u64) = (seed.parse()?, count.parse()?);
    for seed in seed..seed + count {
        let scene = Scene::sample(seed);
        save_png(&std::path::Path::new(folder).join(format!("{}.png", scene.id())), &scene.render())?;
    }
    Ok(())
}
