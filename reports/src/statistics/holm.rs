//! Several tests in one family.

/// Adjusts probabilities so that, with all of them read at 5 %, the chance of any false finding in the family stays at
/// 5 % (Holm, Scandinavian Journal of Statistics 6 (1979), 65-70): the smallest is multiplied by the number of tests, the
/// next by one less, and so on, never falling below one before. The order is kept.
pub fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&left, &right| probabilities[left].total_cmp(&probabilities[right]));
    let mut adjusted = vec![0.0; probabilities.len()];
    let mut largest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        let left = (probabilities.len() - rank) as f64;
        largest = largest.max((left * probabilities[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}
