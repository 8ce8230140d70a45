//! From guest code to linked translations. A second's elements are guest instructions, unless it is said.

use crate::program::{Program, config, instructions};
use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use translator::asm::Asm;
use translator::cache::{CodeCache, RegionMeta};
use translator::decode::{self, WINDOW};
use translator::engine::Engine;
use translator::lower::{Emitted, Lower};
use translator::region::Region;

/// Bytes to instructions.
pub fn decode(criterion: &mut Criterion) {
    let program = Program::new();
    let regions = program.regions();
    let starts = regions.iter().flat_map(|region| region.insns.iter().map(|insn| insn.ins.ip()));
    let base = program.code.as_ptr() as u64;
    let places: Vec<(&[u8], u64)> = starts
        .map(|ip| {
            let rest = &program.code[(ip - base) as usize..];
            (&rest[..rest.len().min(WINDOW)], ip)
        })
        .collect();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(places.len() as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for &(bytes, ip) in &places {
                black_box(decode::decode(black_box(bytes), ip));
            }
        });
    });
}

/// Instructions to regions, decoding included.
pub fn region(criterion: &mut Criterion) {
    let program = Program::new();
    let entries = program.entries();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(instructions(&program.regions())));
    group.bench_function("region", |bencher| {
        bencher.iter(|| {
            for &entry in &entries {
                black_box(program.region(entry));
            }
        });
    });
}

/// Liveness of flags.
pub fn facts(criterion: &mut Criterion) {
    let program = Program::new();
    let entries = program.entries();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(instructions(&program.regions())));
    group.bench_function("facts", |bencher| {
        // What is found is written into the region.
        let regions =
            || entries.iter().map(|&entry| program.region(entry)).collect::<Vec<Region>>();
        let find = |regions: &mut Vec<Region>| {
            regions.iter_mut().for_each(|region| program.facts(region));
        };
        bencher.iter_batched_ref(regions, find, BatchSize::LargeInput);
    });
}

/// Regions to arm64 code.
pub fn lower(criterion: &mut Criterion) {
    let regions = Program::new().regions();
    let config = config();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(instructions(&regions)));
    group.bench_function("lower", |bencher| {
        let (mut asm, mut emitted) = (Asm::default(), Emitted::default());
        bencher.iter(|| {
            for region in &regions {
                asm.clear();
                Lower::new(&mut asm, region, &config, &mut emitted).run();
                black_box(asm.code());
            }
        });
    });
}

/// A region with its code.
struct Lowered {
    region: Region,
    asm: Asm,
    emitted: Emitted,
}

fn lowered() -> Vec<Lowered> {
    let config = config();
    let lowered = |region: Region| {
        let mut asm = Asm::default();
        let mut emitted = Emitted::default();
        Lower::new(&mut asm, &region, &config, &mut emitted).run();
        Lowered { region, asm, emitted }
    };
    Program::new().regions().into_iter().map(lowered).collect()
}

fn put(cache: &CodeCache, all: &[Lowered]) -> Vec<&'static RegionMeta> {
    let put = |Lowered { region, asm, emitted }: &Lowered| cache.append(region, asm, emitted);
    all.iter().map(|lowered| put(lowered).expect("room")).collect()
}

/// Code into the cache, with what is kept of it.
pub fn append(criterion: &mut Criterion) {
    let lowered = lowered();
    let cache = CodeCache::new(config().cache_size).expect("address space");
    let count = lowered.iter().map(|lowered| lowered.region.insns.len() as u64).sum();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(count));
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            cache.reset();
            black_box(put(&cache, &lowered));
        });
    });
}

/// Exits to where they go; elements are exits.
pub fn link(criterion: &mut Criterion) {
    let lowered = lowered();
    let cache = CodeCache::new(config().cache_size).expect("address space");
    let metas = put(&cache, &lowered);
    let exits: Vec<(&RegionMeta, u64, u64)> = metas
        .iter()
        .flat_map(|meta| meta.exits().map(move |exit| (*meta, exit)))
        .filter_map(|(meta, (record, target))| {
            let to = metas.iter().find(|to| to.guest == target && to.guest != meta.guest)?;
            Some((meta, record, to.entry()))
        })
        .collect();
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(exits.len() as u64));
    group.bench_function("link", |bencher| {
        bencher.iter(|| {
            for &(meta, record, host) in &exits {
                cache.link(meta, record, host);
            }
        });
    });
}

/// From a guest address to its translation, by the engine's table; elements are addresses.
pub fn lookup(criterion: &mut Criterion) {
    let program = Program::new();
    let entries = program.entries();
    let engine = Engine::new(config(), Box::new(program)).expect("address space");
    let find = || {
        for &entry in &entries {
            black_box(engine.translation(black_box(entry)).expect("code"));
        }
    };
    find(); // translates them
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("lookup", |bencher| bencher.iter(find));
}
