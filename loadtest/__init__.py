"""Load on sites: people who ask for predictions and neighbours who push updates, in profiles, judged by objectives."""
