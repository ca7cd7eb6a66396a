"""From images in memory or on the disk to mini-batches on the device."""
