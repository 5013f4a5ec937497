"""GEOM-Drugs (Axelrod & Gomez-Bombarelli 2022), and data sets like it, in EDM's format.

A data set is one array of atoms, ``NAME.npy`` (n_atoms_total, 5) float64: the conformer's id 0, 1, 2, ...
ascending, the atomic number, and x, y, z in Angstrom. The atoms of a conformer are contiguous, the conformers
of a molecule too. What lies beside it, :mod:`~symdiff_plugin.data.geom.layout` names. Data flows down this list:

    layout.py        the files of a data set
    npy.py           the header of an array that grows
    archive.py       drugs_crude.msgpack, one molecule at a time
    ensemble.py      the conformers of lowest energy of a molecule, as EDM picks them
    partial.py       the array and its side files while they are written, to be gone on with after a kill
    convert.py       the archive into the array, in bounded memory
    rdkit_archive.py an archive of RDKit's conformers in the same format, to try everything with
    dataset_info.py  EDM's description of a data set, computed, written and read
    text_source.py, geometry.py, sdf_records.py, xyz_frames.py, atom_array.py, own.py
                     SDF and XYZ files into the array
    conformers.py    the array as a sequence of conformers, by memory map
    split.py         EDM's split, and one by molecule
    batches.py       batches of molecules of about one size, with the gradient expectation of shuffled ones
    loading.py       EDM's data loaders over all of this
    flags.py         what main_geom_drugs.py takes for it
"""
