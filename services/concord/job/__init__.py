"""The job file: one YAML text that says what all sites do together. Must not load torch."""

from concord.job.load import load_job, parse_job
from concord.job.model import Job, SiteSettings
from concord.job.problems import JobFileError, JobProblem

__all__ = ["Job", "JobFileError", "JobProblem", "SiteSettings", "load_job", "parse_job"]
