//! Hostile images: whatever an image says, it is read or refused, and nothing else happens.

use super::*;

/// An image of three clusters of 512 bytes: one that is written, one deflated, one of zeros.
fn image() -> Vec<u8> {
    let mut image = vec![0; 6 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, MAGIC);
    put(4, &3_u32.to_be_bytes());
    put(20, &9_u32.to_be_bytes());
    put(24, &1536_u64.to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &512_u64.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(512, &1024_u64.to_be_bytes());
    put(1024, &1536_u64.to_be_bytes());
    // Two sectors of 512 bytes, of which the stream takes 517.
    put(1032, &(COMPRESSED | 1 << 61 | 2048).to_be_bytes());
    put(1536, &[7; 512]);
    // Deflate, one stored block.
    put(2048, &[1, 0, 2, 0xff, 0xfd]);
    put(2053, &[9; 512]);
    image
}

fn read(bytes: &[u8]) -> Option<Vec<u8>> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let mut source = Qcow2::open(file).ok()?;
    // What a hostile header says of the size is not what is tried here.
    let size = source.size().min(1 << 20);
    let mut content = vec![0; usize::try_from(size).unwrap()];
    let mut at = 0;
    while at < size {
        let chunk = source.run(at, size - at).ok()?;
        assert!(chunk.length > 0 && at + chunk.length <= size, "no way forward");
        let to = usize::try_from(at).unwrap()..usize::try_from(at + chunk.length).unwrap();
        source.read(at, &mut content[to]).ok()?;
        at += chunk.length;
    }
    Some(content)
}

#[test]
fn a_whole_image_is_read() {
    let content = read(&image()).unwrap();
    assert_eq!(content, [[7; 512], [9; 512], [0; 512]].concat());
}

#[test]
fn altered_images_are_read_or_refused() {
    let good = image();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut refused, mut reads) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            // Mostly where the structures are.
            let at = [random(112), 512 + random(8), 1024 + random(24), random(good.len())];
            bytes[at[random(4)]] = [0, 0xff, 0x80, u8::try_from(random(256)).unwrap()][random(4)];
        }
        bytes.truncate(if random(8) == 0 { random(good.len()) } else { good.len() });
        match read(&bytes) {
            Some(_) => reads += 1,
            None => refused += 1,
        }
    }
    assert!(refused > 100 && reads > 100, "{refused} refused, {reads} read");
}
