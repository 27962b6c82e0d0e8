//! One run: a volume, a guest, several power cuts, each judged. In half of the runs each write is
//! made durable before it is answered.

mod steps;

use std::{collections::BTreeMap, io, ops::ControlFlow, sync::Arc};

use disk::{
    OpenOptions, Volume, WriteThrough,
    vault::{Medium, NewSlot, NewVault, SlotSecret, Suite, VaultVolume, create_on, open_on},
};
use model::Secret;

use super::{
    guest::{Guest, SECTOR},
    medium::{Cut, Recorder},
    random::Random,
};

/// What a row of runs found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: u64,
    pub(crate) cuts: u64,
    /// Images that were opened and judged.
    pub(crate) images: u64,
    pub(crate) flushes: u64,
    pub(crate) operations: u64,
    /// Writes and clearings that were answered as durable, without a flush.
    pub(crate) through: u64,
    /// Reverts to a snapshot that were tried.
    pub(crate) reverts: u64,
    /// What went wrong, with the seed.
    pub(crate) failures: Vec<(u64, String)>,
}

impl Tally {
    /// Adds another thread's.
    pub(crate) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.cuts += other.cuts;
        self.images += other.images;
        self.flushes += other.flushes;
        self.operations += other.operations;
        self.through += other.through;
        self.reverts += other.reverts;
        self.failures.extend(other.failures);
    }
}

/// What an image was found to hold.
struct Found {
    anchor: u64,
    secret: u64,
    snapshots: Vec<String>,
}

/// Power cuts of one run.
const CUTS: usize = 5;

struct Run {
    random: Random,
    guest: Guest,
    /// Writes are durable when they are answered, as those of a VM are.
    through: bool,
    image: Vec<u8>,
    /// The least and the greatest anchor count that the header may have.
    anchor: (u64, u64),
    /// The secrets of which one must open the volume.
    secrets: Vec<u64>,
    /// Snapshots that must be there, and those that may be there, with their content.
    snapshots: BTreeMap<String, Vec<u8>>,
    perhaps: BTreeMap<String, Vec<u8>>,
    named: u64,
    tally: Tally,
}

/// An open volume: as its owner sees it, and as the guest does.
struct Disk {
    vault: Arc<VaultVolume>,
    guest: Arc<dyn Volume>,
}

impl Disk {
    fn new(volume: VaultVolume, through: bool) -> Self {
        let vault = Arc::new(volume);
        let guest: Arc<dyn Volume> = Arc::clone(&vault) as Arc<dyn Volume>;
        let guest = if through { Arc::new(WriteThrough::new(guest)) } else { guest };
        Self { vault, guest }
    }
}

/// Runs the workload of `seed` and adds to `tally`.
pub(crate) fn run(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let sizes = [1000, 7 * SECTOR, 130 * SECTOR + 17, 300 * SECTOR];
    let size = sizes[random.below(sizes.len())];
    let image =
        created(size, if random.below(2) == 0 { Suite::Aes256Gcm } else { Suite::Aegis256X4 });
    let guest = Guest::new(size);
    let mut run = Run {
        through: random.below(2) == 0,
        random,
        guest,
        image,
        anchor: (0, 0),
        secrets: vec![0],
        snapshots: BTreeMap::new(),
        perhaps: BTreeMap::new(),
        named: 0,
        tally: Tally::default(),
    };
    let mut outcome = Ok(());
    for _ in 0..CUTS {
        outcome = outcome.and_then(|()| run.until_cut());
    }
    run.tally.runs = 1;
    tally.add(run.tally);
    if let Err(why) = outcome {
        tally.failures.push((seed, why));
    }
}

fn secret(number: u64) -> Secret<Vec<u8>> {
    Secret::new(format!("key {number} of the volume").into_bytes())
}

fn failed(error: disk::VolumeError) -> io::Error {
    if let disk::VolumeError::Io { source, .. } = error {
        return source;
    }
    io::Error::other(said(&error))
}

fn created(size: usize, suite: Suite) -> Vec<u8> {
    let medium = Recorder::new(Vec::new(), u64::MAX);
    let key = secret(0);
    let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" }];
    let path = std::path::Path::new("unused");
    let size = u64::try_from(size).unwrap();
    let new = NewVault { path, size, suite, log_bytes: Some(256 << 10), label: "", slots: &slots };
    create_on(medium.as_ref(), &new).unwrap();
    medium.visible()
}

/// Opens the volume with the first of the secrets that fits, and says which.
fn opened(
    medium: &Arc<Recorder>,
    secrets: &[u64],
    options: &OpenOptions,
) -> Result<(VaultVolume, u64), disk::VolumeError> {
    let mut outcome = Err(disk::VolumeError::Cancelled);
    for number in secrets {
        let medium: Arc<dyn Medium> = Arc::clone(medium) as Arc<dyn Medium>;
        outcome = open_on(medium, &secret(*number), options).map(|volume| (volume, *number));
        // The newer secret may meet a torn header while the older one is still in force.
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn content(volume: &VaultVolume) -> Result<Vec<u8>, String> {
    let mut found = vec![0; usize::try_from(volume.size()).unwrap()];
    volume.read(0, &mut found).map_err(|error| format!("a sector is lost: {error}"))?;
    Ok(found)
}

fn said(error: &disk::VolumeError) -> String {
    error.rejection().map_or_else(|| error.to_string(), |why| why.code().to_owned())
}

impl Run {
    /// Opens the volume, works on it until the power is cut, and judges what is left.
    fn until_cut(&mut self) -> Result<(), String> {
        let left = match self.random.below(4) {
            0 => 1 + self.random.below(12),
            _ => 1 + self.random.below(160),
        };
        let medium = Recorder::new(self.image.clone(), u64::try_from(left).unwrap());
        match opened(&medium, &self.secrets, &OpenOptions::default()) {
            Ok((volume, _)) => {
                let disk = Disk::new(volume, self.through);
                let worked = self.work(&medium, &disk);
                medium.kill();
                drop(disk);
                worked?;
            }
            Err(_) if medium.dead() => {}
            Err(error) => return Err(format!("not opened for writing: {}", said(&error))),
        }
        medium.kill();
        self.tally.cuts += 1;
        for cut in [Cut::Nothing, Cut::Everything, Cut::Prefix, Cut::Subset] {
            let image = medium.image(cut, &mut self.random);
            self.judge(&mut self.guest.clone(), image).map_err(|why| format!("{cut:?}: {why}"))?;
        }
        let cuts = [Cut::Nothing, Cut::Everything, Cut::Prefix, Cut::Subset, Cut::Torn, Cut::Torn];
        let cut = cuts[self.random.below(cuts.len())];
        let image = medium.image(cut, &mut self.random);
        let mut guest = self.guest.clone();
        let found =
            self.judge(&mut guest, image.clone()).map_err(|why| format!("{cut:?}: {why}"))?;
        self.guest = guest;
        self.anchor = (found.anchor, found.anchor);
        self.secrets = vec![found.secret];
        let all = std::mem::take(&mut self.snapshots).into_iter();
        let all = all.chain(std::mem::take(&mut self.perhaps));
        self.snapshots = all.filter(|(name, _)| found.snapshots.contains(name)).collect();
        self.image = image;
        Ok(())
    }

    /// What one image holds.
    fn judge(&mut self, guest: &mut Guest, image: Vec<u8>) -> Result<Found, String> {
        self.tally.images += 1;
        let medium = Recorder::new(image, u64::MAX);
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let (volume, secret) = opened(&medium, &self.secrets, &options)
            .map_err(|error| format!("not opened after a cut: {}", said(&error)))?;
        guest.settle(&content(&volume)?)?;
        let bad = volume.check(&mut |_, _| ControlFlow::Continue(())).map_err(|e| said(&e))?;
        if !bad.is_empty() {
            return Err(format!("the check finds {bad:?}"));
        }
        let anchor = volume.head().anchor_count;
        if !(self.anchor.0..=self.anchor.1).contains(&anchor) {
            return Err(format!("the anchor count is {anchor}, not {:?}", self.anchor));
        }
        let snapshots: Vec<String> = volume.snapshots().into_iter().map(|s| s.name).collect();
        drop(volume);
        self.judge_snapshots(&medium, secret, &snapshots)?;
        Ok(Found { anchor, secret, snapshots })
    }

    fn judge_snapshots(
        &self,
        medium: &Arc<Recorder>,
        secret: u64,
        found: &[String],
    ) -> Result<(), String> {
        if let Some(lost) = self.snapshots.keys().find(|name| !found.contains(name)) {
            return Err(format!("snapshot {lost} is lost"));
        }
        for name in found {
            let known = self.snapshots.get(name).or_else(|| self.perhaps.get(name));
            let known = known.ok_or_else(|| format!("snapshot {name} is invented"))?;
            let snapshot = Some(name.clone());
            let options = OpenOptions { read_only: true, snapshot, ..OpenOptions::default() };
            let (volume, _) = opened(medium, &[secret], &options).map_err(|e| said(&e))?;
            if content(&volume)? != *known {
                return Err(format!("snapshot {name} is not what it was"));
            }
        }
        Ok(())
    }

    /// Works until the medium is dead, or until it is enough.
    fn work(&mut self, medium: &Arc<Recorder>, disk: &Disk) -> Result<(), String> {
        self.guest.settle(&content(&disk.vault)?)?;
        for _ in 0..self.random.below(120) {
            self.tally.operations += 1;
            if let Err(error) = self.step(disk) {
                if medium.dead() {
                    return Ok(());
                }
                return Err(format!("an operation failed without a cut: {error}"));
            }
        }
        Ok(())
    }
}
