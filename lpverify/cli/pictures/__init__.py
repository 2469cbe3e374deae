"""The pictures of ``lpverify figure``, one file each: what is measured is saved as STEM.npz or STEM.csv, then drawn."""
