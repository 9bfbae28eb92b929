//! Related tables in one item: foreign keys and likely links decide, count and bytes bound.

use std::collections::VecDeque;

/// Tables of one concept item.
pub const MAX_TABLES: usize = 4;
/// Bytes of their text and of their names in the answer.
pub const MAX_BYTES: usize = 5_000;

/// Splits tables `0..bytes.len()` into groups of at most [`MAX_TABLES`] tables and [`MAX_BYTES`] bytes of text
/// (a table larger than that stands alone). Every table is in exactly one group; groups are ordered by their
/// first table. `edges` are pairs of related tables.
pub fn groups(bytes: &[usize], edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut near: Vec<Vec<usize>> = vec![Vec::new(); bytes.len()];
    for (a, b) in edges {
        if a != b {
            near[*a].push(*b);
            near[*b].push(*a);
        }
    }
    let mut placed = vec![false; bytes.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut singles: Vec<usize> = Vec::new();
    for start in 0..bytes.len() {
        if placed[start] {
            continue;
        }
        let mut group = Vec::new();
        let mut size = 0;
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            let fits = group.is_empty() || size + bytes[at] <= MAX_BYTES;
            if placed[at] || !fits || group.len() == MAX_TABLES {
                continue;
            }
            placed[at] = true;
            size += bytes[at];
            group.push(at);
            near[at].sort_unstable();
            queue.extend(near[at].iter().filter(|n| !placed[**n]));
        }
        if group.len() == 1 { singles.push(start) } else { groups.push(group) }
    }
    groups.extend(packed(&singles, bytes));
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_by_key(|group| group[0]);
    groups
}

/// Tables without relatives share items in catalog order.
fn packed(tables: &[usize], bytes: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut size = 0;
    for at in tables {
        match groups.last_mut() {
            Some(group) if group.len() < MAX_TABLES && size + bytes[*at] <= MAX_BYTES => {
                size += bytes[*at];
                group.push(*at);
            }
            _ => {
                size = bytes[*at];
                groups.push(vec![*at]);
            }
        }
    }
    groups
}
